// The JSON value that the job keeps for each aircraft.

import FlightsExample
import Testing

@Suite struct LastDepartureTests {
    private func flight() throws -> Flight {
        let line = "2013,1,1,517,515,-2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
        return try Flight(line: ArraySlice(line.utf8))
    }

    @Test func aLastDepartureComesBackFromItsJSON() throws {
        let departure = LastDeparture(try flight())
        #expect(
            departure.json
                == #"{"airport":"EWR","flight":"UA1545","destination":"IAH","date":20130101,"scheduled":515,"delay":-2}"#
        )
        #expect(try LastDeparture(json: ArraySlice(departure.json.utf8)) == departure)
    }

    @Test func everyCutOfTheJSONIsRefused() throws {
        let bytes = Array(LastDeparture(try flight()).json.utf8)
        for count in bytes.indices {
            #expect(throws: (any Error).self, "cut to \(count) bytes") {
                try LastDeparture(json: bytes[..<count])
            }
        }
        #expect(throws: (any Error).self) { try LastDeparture(json: (bytes + [0x20])[...]) }
    }
}
