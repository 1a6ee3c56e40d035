// The source of the flights job: what it delivers, and what it says about a damaged file.

import CZstd
import FlightsExample
import Foundation
import Testing

@Suite struct FlightSourceTests {
    @Test func everyNinetySeventhFlightComesAgainFortyPlacesLater() throws {
        let file = try FlightFile.write(flights: 300)
        defer { file.remove() }
        var source = try FlightSource(path: file.path)
        var numbers: [Int] = []
        while let delivery = try source.next() { numbers.append(delivery.flight.number) }
        var expected: [Int] = []
        for number in 1...300 {
            expected.append(number)
            if number > 40, (number - 40).isMultiple(of: 97) { expected.append(number - 40) }
        }
        // 291 would come again after 331, which the file does not have.
        #expect(numbers == expected)
        #expect(numbers.count == 302)
        #expect(source.offset == 302)
    }

    @Test func skippingToAnOffsetContinuesTheSameStream() throws {
        let file = try FlightFile.write(flights: 400)
        defer { file.remove() }
        var whole = try FlightSource(path: file.path)
        var deliveries: [Delivery] = []
        while let delivery = try whole.next() { deliveries.append(delivery) }
        // Offsets around a flight that is delivered again, before and after its second delivery.
        for offset in [0, 1, 96, 97, 98, 136, 137, 138, 139, 300, deliveries.count] {
            var source = try FlightSource(path: file.path)
            try source.skip(to: offset)
            var rest: [Delivery] = []
            while let delivery = try source.next() { rest.append(delivery) }
            #expect(rest == Array(deliveries[offset...]), "from offset \(offset)")
        }
    }

    @Test func aDayBeginsWhenTheDateChangesAndNotWithADuplicate() throws {
        // 100 flights a day: flight 97 of the first day comes again on the second.
        let file = try FlightFile.write(flights: 250, perDay: 100)
        defer { file.remove() }
        var source = try FlightSource(path: file.path)
        var days: [Int] = []
        var again: Delivery?
        while let delivery = try source.next() {
            days.append(delivery.day)
            if delivery.flight.number == 97 { again = delivery }
        }
        #expect(days == days.sorted())
        #expect(Set(days) == [1, 2, 3])
        #expect(again?.day == 2)
        #expect(again?.flight.date == 2013_01_01)
    }

    @Test func aCancelledFlightHasNoDelays() throws {
        let line = "2013,1,2,NA,1545,NA,NA,1910,NA,AA,133,NA,JFK,LAX,NA,2475,15,45,2013-01-02T20:00:00Z"
        let flight = try Flight(line: ArraySlice(line.utf8))
        #expect(flight.isCancelled)
        #expect(flight.arrivalDelay == nil)
        #expect(flight.tailNumber == nil)
        #expect(flight.date == 2013_01_02)
        #expect(String(decoding: flight.identity, as: UTF8.self) == "AA133 JFK 20130102")
    }

    @Test func aLineThatIsNotAFlightIsRefusedWithItsColumn() {
        let good = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
        let cases = [
            (good.replacingOccurrences(of: ",515,", with: ",5x5,"), "sched_dep_time"),
            (good.replacingOccurrences(of: "UA", with: ""), "carrier"),
            (good.replacingOccurrences(of: "2013,1,1", with: "12345678901,1,1"), "year"),
            (String(good.dropLast(21)), "18 columns where 19 were expected"),
            (good + ",more", "20 columns where 19 were expected"),
            ("2013,1", "ends before column day"),
        ]
        for (line, reason) in cases {
            #expect {
                try Flight(line: ArraySlice(line.utf8))
            } throws: { error in
                "\(error)".contains(reason)
            }
        }
    }

    @Test func aTruncatedFileIsReportedAsTruncated() throws {
        let file = try FlightFile.write(flights: 2000)
        defer { file.remove() }
        let bytes = try Data(contentsOf: URL(fileURLWithPath: file.path))
        for cut in [bytes.count - 1, bytes.count / 2, 7] {
            try bytes.prefix(cut).write(to: URL(fileURLWithPath: file.path))
            #expect(throws: FlightSourceError.truncated(path: file.path, offset: UInt64(cut))) {
                try FlightFile.drain(file.path)
            }
        }
    }

    @Test func aFlippedBitIsReportedAsDamage() throws {
        let file = try FlightFile.write(flights: 2000)
        defer { file.remove() }
        var bytes = try Data(contentsOf: URL(fileURLWithPath: file.path))
        bytes[bytes.count / 2] ^= 0x10
        try bytes.write(to: URL(fileURLWithPath: file.path))
        #expect {
            try FlightFile.drain(file.path)
        } throws: { error in
            switch error as? FlightSourceError {
            case .damaged, .badRecord: true
            default: false
            }
        }
    }

    @Test func aFileOfSomethingElseIsRefusedByItsHeader() throws {
        let file = try FlightFile.write(text: "a,b,c\n1,2,3\n")
        defer { file.remove() }
        #expect(throws: FlightSourceError.unexpectedHeader(path: file.path, found: "a,b,c")) {
            try FlightFile.drain(file.path)
        }
        #expect {
            try FlightFile.drain("/nonexistent/flights.csv.zst")
        } throws: { error in
            "\(error)".contains("No such file")
        }
    }

    @Test func aFileShorterThanTheOffsetIsRefused() throws {
        let file = try FlightFile.write(flights: 10)
        defer { file.remove() }
        var source = try FlightSource(path: file.path)
        do {
            try source.skip(to: 11)
            Issue.record("the skip went beyond the end")
        } catch {
            #expect("\(error)".contains("before offset 11"))
        }
    }

    @Test(.enabled(if: isOptimized, "the whole file takes seconds in a debug build"))
    func theFileInTheRepositoryIsWhole() throws {
        var source = try FlightSource(path: FlightFile.repositoryFile)
        var flights = 0
        var cancelled = 0
        var withoutArrival = 0
        var withoutTail = 0
        var day = 0
        while let delivery = try source.next() {
            flights += 1
            if delivery.flight.isCancelled { cancelled += 1 }
            if delivery.flight.arrivalDelay == nil { withoutArrival += 1 }
            if delivery.flight.tailNumber == nil { withoutTail += 1 }
            day = delivery.day
        }
        // 336,776 flights and the 3,471 that come again; the other counts include those too.
        #expect(flights == 340_247)
        #expect(day == 365)
        #expect(cancelled >= 8_255 && withoutArrival >= 9_430 && withoutTail >= 2_512)
    }
}

/// Whether the product is built for release; the configuration is one for the whole package.
private var isOptimized: Bool {
    #if DEBUG
        false
    #else
        true
    #endif
}

/// Small flight files in the format of the real one.
private struct FlightFile {
    static let repositoryFile = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Examples/flights/flights.csv.zst").path

    let path: String

    static func write(flights: Int, perDay: Int = 50) throws -> FlightFile {
        var text = Flight.header + "\n"
        for number in 1...flights {
            let day = 1 + (number - 1) / perDay
            text += "2013,\(1 + (day - 1) / 28),\(1 + (day - 1) % 28),517,515,2,830,819,11,UA,\(number),N\(number % 7),"
            text += "EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z\n"
        }
        return try write(text: text)
    }

    static func write(text: String) throws -> FlightFile {
        let source = Array(text.utf8)
        var target = [UInt8](repeating: 0, count: ZSTD_compressBound(source.count))
        let context = ZSTD_createCCtx()
        defer { ZSTD_freeCCtx(context) }
        _ = ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
        let size = ZSTD_compress2(context, &target, target.count, source, source.count)
        let path = NSTemporaryDirectory() + "/flights-\(UUID().uuidString).csv.zst"
        try Data(target[0..<size]).write(to: URL(fileURLWithPath: path))
        return FlightFile(path: path)
    }

    static func drain(_ path: String) throws {
        var source = try FlightSource(path: path)
        while try source.next() != nil {}
    }

    func remove() {
        try? FileManager.default.removeItem(atPath: path)
    }
}
