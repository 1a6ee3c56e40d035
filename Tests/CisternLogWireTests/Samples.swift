// Messages that the tests share: one of each kind for the vectors, and random ones.

import CisternLogProtocol
import CisternPrimitives

let ledger = LedgerID(7)

extension SeededRandom {
    mutating func bytes(_ range: ClosedRange<Int>) -> [UInt8] {
        (0..<Int.random(in: range, using: &self)).map { _ in UInt8.random(in: 0...255, using: &self) }
    }

    mutating func entry(from least: Int64 = 0) -> EntryID {
        EntryID(Int64.random(in: least...(Bool.random(using: &self) ? 100 : Int64.max >> 1), using: &self))
    }

    mutating func request() -> NodeRequest {
        let ledger = LedgerID(next() >> 2)
        switch Int.random(in: 0..<5, using: &self) {
        case 0:
            let entry = entry()
            let lac = EntryID(Int64.random(in: -1..<entry.rawValue, using: &self))
            return .add(
                AddRequest(
                    ledger: ledger, entry: entry, lac: lac, body: bytes(0...100),
                    isRecovery: Bool.random(using: &self)))
        case 1:
            return .read(
                ReadRequest(
                    ledger: ledger, first: entry(), count: Int.random(in: 1...ReadRequest.countMax, using: &self),
                    bytesMax: Int.random(in: 0...(16 << 20), using: &self), fence: Bool.random(using: &self)))
        case 2:
            return .readLAC(
                ReadLACRequest(
                    ledger: ledger, fence: Bool.random(using: &self),
                    newerThan: Bool.random(using: &self) ? entry(from: -1) : nil))
        case 3: return .writeLAC(ledger, lac: entry(from: -1))
        default: return .delete(ledger)
        }
    }

    mutating func reply() -> NodeReply {
        let ledger = LedgerID(next() >> 2)
        let refusal = Bool.random(using: &self) ? NodeRefusal.allCases.randomElement(using: &self) : nil
        switch Int.random(in: 0..<3, using: &self) {
        case 0: return .add(AddReply(ledger: ledger, entry: entry(), refusal: refusal))
        case 1:
            return .lac(
                ReadLACReply(
                    ledger: ledger, lac: entry(from: -1), isFenced: Bool.random(using: &self), refusal: refusal))
        default:
            let count = refusal == nil ? Int.random(in: 0...40, using: &self) : 0
            let answers = (0..<count).map { _ -> EntryAnswer in
                switch Int.random(in: 0..<3, using: &self) {
                case 0: .present(bytes(0...50))
                case 1: .absent
                default: .unknown
                }
            }
            return .read(
                ReadReply(
                    ledger: ledger, first: entry(), answers: answers, lac: entry(from: -1),
                    isFenced: Bool.random(using: &self), refusal: refusal))
        }
    }
}
