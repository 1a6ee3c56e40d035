import CisternWire
import CisternWireMessages
import Testing

@Suite struct ControlMessageTests {
    @Test func aControlMessageComesBack() throws {
        var attach = Cistern_V1_Attach()
        attach.store = "flights"
        attach.keyGroupLast = 127
        attach.restore = ["a", "b"]
        let bytes = ControlMessage.encode(attach)
        let back = try bytes.withUnsafeBytes { try ControlMessage.decode(Cistern_V1_Attach.self, from: $0) }
        #expect(back == attach)
    }

    @Test func dictionariesTravelAsPlainBytes() throws {
        let put = Cistern_V1_PutDictionary(stateID: 4, dictionaryBytes: [1, 2, 3])
        let bytes = ControlMessage.encode(put)
        let back = try bytes.withUnsafeBytes { try ControlMessage.decode(Cistern_V1_PutDictionary.self, from: $0) }
        #expect(back.dictionaryBytes == [1, 2, 3] && back.stateID == 4)
        #expect(Cistern_V1_GetDictionaryReply(stateID: 1, dictionaryBytes: [9]).dictionaryBytes == [9])
    }

    @Test func damagedControlMessagesThrowTypedErrors() {
        var attach = Cistern_V1_Attach()
        attach.store = "flights"
        attach.restore = ["some/handle", "other/handle"]
        attach.epoch = 300
        let good = ControlMessage.encode(attach)
        for index in good.indices {
            for change in 1...255 as ClosedRange<UInt8> {
                var bytes = good
                bytes[index] ^= change
                let error = bytes.withUnsafeBytes { body in
                    wireError { () throws(WireError) in
                        _ = try ControlMessage.decode(Cistern_V1_Attach.self, from: body)
                    }
                }
                if let error { #expect(error.code == .badMessage) }
            }
        }
    }

    @Test func anOversizeControlBodyIsRefusedBeforeItIsDecoded() {
        let bytes = [UInt8](repeating: 0, count: WireLimits.controlBodyBytesMax + 1)
        let error = bytes.withUnsafeBytes { body in
            wireError { () throws(WireError) in _ = try ControlMessage.decode(Cistern_V1_Attach.self, from: body) }
        }
        #expect(error?.code == .limitExceeded)
    }

    @Test func errorsCarryClassAndAdvice() {
        let body = ErrorBody(.fenced, "writer a of 0...3", currentEpoch: 9)
        #expect(body.errorCode == .fenced && body.class == .fenced && body.currentEpoch == 9)
        #expect(body.summary.hasPrefix("FENCED: writer a of 0...3 (stop"))
        #expect(ErrorBody(.busy, "").retryMilliseconds == 50)
        #expect(ErrorBody(.busy, "", retryMilliseconds: 7).retryMilliseconds == 7)
        var unknown = body
        unknown.code = 9999
        #expect(unknown.errorCode == nil && unknown.summary.hasPrefix("error 9999"))
    }

    @Test func everyErrorHasANameAdviceAndAClass() {
        #expect(Set(ErrorCode.allCases.map(\.name)).count == ErrorCode.allCases.count)
        for code in ErrorCode.allCases {
            #expect(!code.advice.isEmpty && code.errorClass != .unspecified)
            // Waiting helps only where the same request may succeed later, or another connection may.
            if code.errorClass == .fatal || code.errorClass == .fenced { #expect(code.retryMilliseconds == 0) }
        }
    }

    @Test func limitsFitIntoEachOther() {
        #expect(WireLimits.frameBytesMaxDefault <= WireLimits.frameBytesMaxHard)
        #expect(WireLimits.frameBytesMaxDefault >= WireLimits.valueBytesMax + WireLimits.keyBytesMax + 1024)
        #expect(WireLimits.bytesMaxDefault >= WireLimits.frameBytesMaxDefault)
        #expect(WireLimits.batchBytesMax + 17 * WireLimits.batchEntriesMax + 1024 <= WireLimits.frameBytesMaxDefault)
        #expect(WireLimits.controlBodyBytesMax < WireLimits.frameBytesMaxDefault)
    }

    @Test func versionsAreNegotiated() {
        #expect(WireVersion.negotiate(peerMin: 1, peerMax: 1) == 1)
        #expect(WireVersion.negotiate(peerMin: 0, peerMax: 9) == WireVersion.max)
        #expect(WireVersion.negotiate(peerMin: 2, peerMax: 3) == nil)
        #expect(WireVersion.negotiate(peerMin: 0, peerMax: 0) == nil)
    }
}
