// The catalog file: records with a checksum each. Written as a whole, so there is no log to replay and no torn tail: a file
// that does not decode to its last byte is damaged. Specification: proto-spec/catalog.md.
//
//     file   = header, record *, end record
//     header = "CISTCATL" (8) ‖ u32 version ‖ u32 CRC-32C of the 12 bytes before
//     record = u32 CRC-32C of the rest of the record ‖ u32 payload bytes ‖ u8 type ‖ payload
//
//     type 1 server      16 bytes: identity of the data directory; exactly one, first
//     type 2 store       u32 key-group count ‖ name; the records up to the next store belong to it
//     type 3 state       u16 id ‖ u8 kind ‖ u64 TTL in milliseconds ‖ name
//     type 4 dictionary  u32 id ‖ u16 state id ‖ dictionary
//     type 255 end       u32 number of records before it; nothing follows

package import CisternPrimitives

package enum CatalogFormat {
    package static let magic: [UInt8] = Array("CISTCATL".utf8)
    /// On disk: never renumber.
    package static let version: UInt32 = 1
    package static let headerBytes = 16
    package static let recordHeaderBytes = 9

    /// On disk: never renumber.
    package enum RecordType: UInt8, Sendable {
        case server = 1
        case store = 2
        case state = 3
        case dictionary = 4
        case end = 255
    }

    package static func encode(_ state: CatalogState) -> [UInt8] {
        var out = ByteWriter()
        out.writeBytes(magic)
        out.writeInteger(version)
        out.writeInteger(CRC32C.checksum(out.bytes))
        var records: UInt32 = 0
        writeRecord(.server, into: &out, count: &records) { $0.writeBytes(state.serverID) }
        for store in state.stores {
            writeRecord(.store, into: &out, count: &records) {
                $0.writeInteger(UInt32(store.keyGroupCount))
                $0.writeBytes(store.name.utf8)
            }
            for entry in store.states {
                writeRecord(.state, into: &out, count: &records) {
                    $0.writeInteger(entry.id)
                    $0.writeUInt8(entry.kind.rawValue)
                    $0.writeInteger(entry.ttlMilliseconds)
                    $0.writeBytes(entry.name.utf8)
                }
            }
            for dictionary in store.dictionaries {
                writeRecord(.dictionary, into: &out, count: &records) {
                    $0.writeInteger(dictionary.id)
                    $0.writeInteger(dictionary.stateID)
                    $0.writeBytes(dictionary.bytes)
                }
            }
        }
        let before = records
        writeRecord(.end, into: &out, count: &records) { $0.writeInteger(before) }
        return out.bytes
    }

    /// Takes any bytes. `visit` sees every part with its byte range, in order, before anything later is looked at.
    package static func decode(
        _ bytes: [UInt8], source: String, visit: (Part) -> Void = { _ in }
    ) throws(CorruptionError) -> CatalogState {
        var decoder = Decoder(source: source)
        return try decoder.decode(bytes, visit: visit)
    }

    /// A piece of the file, for people who look at it.
    package struct Part: Sendable {
        package let range: Range<Int>
        package let name: String
        package let detail: String
    }
}

private func writeRecord(
    _ type: CatalogFormat.RecordType, into out: inout ByteWriter, count: inout UInt32,
    payload: (inout ByteWriter) -> Void
) {
    var body = ByteWriter()
    payload(&body)
    var covered = ByteWriter()
    covered.writeInteger(UInt32(body.count))
    covered.writeUInt8(type.rawValue)
    covered.writeBytes(body.bytes)
    out.writeInteger(CRC32C.checksum(covered.bytes))
    out.writeBytes(covered.bytes)
    count += 1
}

/// One pass over the file; `state` grows record by record and every rule of `CatalogState` is checked again.
private struct Decoder {
    let source: String
    var state: CatalogState?

    init(source: String) { self.source = source }

    mutating func decode(
        _ bytes: [UInt8], visit: (CatalogFormat.Part) -> Void
    ) throws(CorruptionError) -> CatalogState {
        try header(bytes)
        visit(.init(range: 0..<CatalogFormat.headerBytes, name: "header", detail: "version \(CatalogFormat.version)"))
        var offset = CatalogFormat.headerBytes
        var records: UInt32 = 0
        while true {
            let (type, payload) = try record(bytes, at: offset)
            let start = offset + CatalogFormat.recordHeaderBytes
            let detail = try apply(type, Array(payload), at: start, recordsBefore: records)
            visit(.init(range: offset..<payload.endIndex, name: "\(type)", detail: detail))
            offset = payload.endIndex
            if type == .end { break }
            records += 1
        }
        guard offset == bytes.count else {
            throw damaged(offset, "\(bytes.count - offset) bytes follow the end record")
        }
        guard let state else { throw damaged(CatalogFormat.headerBytes, "there is no server record") }
        return state
    }

    private func damaged(_ offset: Int, _ detail: String) -> CorruptionError {
        CorruptionError(source: source, offset: UInt64(offset), detail: detail)
    }

    private func header(_ bytes: [UInt8]) throws(CorruptionError) {
        guard bytes.count >= CatalogFormat.headerBytes else {
            throw damaged(bytes.count, "the file ends inside its header of \(CatalogFormat.headerBytes) bytes")
        }
        guard Array(bytes[0..<8]) == CatalogFormat.magic else { throw damaged(0, "this is not a catalog file") }
        guard CRC32C.checksum(Array(bytes[0..<12])) == u32(bytes[12...]) else {
            throw damaged(12, "the header's checksum does not match")
        }
        let version = u32(bytes[8...])
        guard version == CatalogFormat.version else {
            throw damaged(
                8, "format version \(version) is not \(CatalogFormat.version): use the program that wrote this file")
        }
    }

    private func record(
        _ bytes: [UInt8], at offset: Int
    ) throws(CorruptionError) -> (CatalogFormat.RecordType, ArraySlice<UInt8>) {
        guard bytes.count - offset >= CatalogFormat.recordHeaderBytes else {
            throw damaged(offset, "the file ends before its end record")
        }
        let length = Int(u32(bytes[(offset + 4)...]))
        let start = offset + CatalogFormat.recordHeaderBytes
        guard length <= bytes.count - start else {
            throw damaged(offset + 4, "a record of \(length) bytes goes beyond the end of the file")
        }
        guard CRC32C.checksum(Array(bytes[(offset + 4)..<(start + length)])) == u32(bytes[offset...]) else {
            throw damaged(offset, "a record's checksum does not match")
        }
        guard let type = CatalogFormat.RecordType(rawValue: bytes[offset + 8]) else {
            throw damaged(offset + 8, "record type \(bytes[offset + 8]) is unknown")
        }
        return (type, bytes[start..<(start + length)])
    }

    /// Adds a record to the state; returns what it says.
    private mutating func apply(
        _ type: CatalogFormat.RecordType, _ payload: [UInt8], at offset: Int, recordsBefore: UInt32
    ) throws(CorruptionError) -> String {
        switch type {
        case .server:
            guard state == nil, recordsBefore == 0, payload.count == CatalogState.serverIDBytes else {
                throw damaged(offset, "the server record is not 16 bytes, or not the first")
            }
            state = CatalogState(serverID: payload)
            return hexadecimal(payload)
        case .store: return try applyStore(payload, at: offset)
        case .state: return try applyState(payload, at: offset)
        case .dictionary: return try applyDictionary(payload, at: offset)
        case .end:
            guard payload.count == 4, u32(payload[...]) == recordsBefore else {
                throw damaged(offset, "the end record does not count the \(recordsBefore) records before it")
            }
            return "\(recordsBefore) records"
        }
    }

    private mutating func applyStore(_ payload: [UInt8], at offset: Int) throws(CorruptionError) -> String {
        guard payload.count >= 4, let name = String(validating: payload.dropFirst(4), as: UTF8.self), state != nil,
            state?.store(name) == nil
        else { throw damaged(offset, "a store record is short, repeated, not UTF-8, or before the server record") }
        let count = Int(u32(payload[...]))
        try refused(offset) { (state: inout CatalogState) throws(CatalogRefusal) in
            _ = try state.ensureStore(name, keyGroupCount: count)
        }
        return "\"\(name)\", \(count) key groups"
    }

    private mutating func applyState(_ payload: [UInt8], at offset: Int) throws(CorruptionError) -> String {
        guard payload.count >= 11, let kind = CatalogStateKind(rawValue: payload[2]),
            let name = String(validating: payload.dropFirst(11), as: UTF8.self),
            let store = state?.stores.last, !store.states.contains(where: { $0.name == name })
        else { throw damaged(offset, "a state record is short, repeated, of an unknown kind, or before any store") }
        let id = UInt16(u64(payload[0..<2]))
        let ttl = u64(payload[3..<11])
        guard Int(id) == store.states.count + 1 else { throw damaged(offset, "state id \(id) is out of order") }
        try refused(offset) { (state: inout CatalogState) throws(CatalogRefusal) in
            _ = try state.register(store: store.name, state: name, kind: kind, ttlMilliseconds: ttl)
        }
        return "\(id) \"\(name)\", \(kind), TTL \(ttl) ms"
    }

    private mutating func applyDictionary(_ payload: [UInt8], at offset: Int) throws(CorruptionError) -> String {
        guard payload.count >= 6, let store = state?.stores.last else {
            throw damaged(offset, "a dictionary record is short, or before any store")
        }
        let id = u32(payload[...])
        let stateID = UInt32(u64(payload[4..<6]))
        guard Int(id) == store.dictionaries.count + 1 else {
            throw damaged(offset, "dictionary id \(id) is out of order")
        }
        let bytes = Array(payload[6...])
        var given: UInt32 = 0
        try refused(offset) { (state: inout CatalogState) throws(CatalogRefusal) in
            given = try state.addDictionary(store: store.name, stateID: stateID, bytes: bytes)
        }
        guard given == id else { throw damaged(offset, "dictionary \(id) repeats the bytes of dictionary \(given)") }
        return "\(id) of state \(stateID), \(bytes.count) bytes"
    }

    private mutating func refused(
        _ offset: Int, _ change: (inout CatalogState) throws(CatalogRefusal) -> Void
    ) throws(CorruptionError) {
        guard var next = state else { throw damaged(offset, "a record stands before the server record") }
        do throws(CatalogRefusal) {
            try change(&next)
        } catch {
            throw damaged(offset, error.sentence)
        }
        state = next
    }
}

/// - Precondition: `bytes` has at least 4 bytes.
private func u32(_ bytes: ArraySlice<UInt8>) -> UInt32 { UInt32(u64(bytes.prefix(4))) }

/// Little-endian, at most 8 bytes.
private func u64(_ bytes: ArraySlice<UInt8>) -> UInt64 {
    bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
}

package func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
}
