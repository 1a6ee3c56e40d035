// Trees of state servers whose logs are replicated, and what servers share about a store, as records.

package import CisternPrimitives

/// A tree of keyed state: whose it is, and from what it can be made again where its server's disk is not.
///
/// u16 first ‖ u16 last key group ‖ u32 key groups of the store ‖ u64 epoch ‖ text writer ‖ 16 bytes server ‖ u64 tree ‖
/// u64 generation ‖ base: u64 epoch ‖ u64 sequence ‖ texts handles ‖ texts held
///
/// text = u16 bytes ‖ UTF-8; texts = u32 count ‖ text *
package struct TreeRecord: MetadataRecord {
    package static let serverBytes = 16
    package static let textBytesMax = 1024
    package static let handlesMax = 1024

    /// What of the tree is in the snapshot store: its log behind this place holds the rest.
    package struct Base: Hashable, Sendable {
        /// The last batch that the snapshots hold, or where the epoch begins.
        package var epoch: UInt64
        package var sequence: UInt64
        /// Together the tree's key groups; none for a tree that began empty.
        package var handles: [String]

        package init(epoch: UInt64, sequence: UInt64, handles: [String]) {
            self.epoch = epoch
            self.sequence = sequence
            self.handles = handles
        }
    }

    package let keyGroups: KeyGroupRange
    package let keyGroupCount: UInt32
    package var epoch: UInt64
    package var writer: String
    /// The server that has it.
    package var server: [UInt8]
    /// Its number there; 0 while it is being made.
    package var tree: UInt64
    /// Counts takeovers: the attempt of the log's owner.
    package var generation: UInt64
    package var base: Base
    /// Snapshots that nobody needs but the tree: they are released when the base has moved on.
    package var held: [String]

    /// - Precondition: 16 bytes of server, texts of at most `textBytesMax` bytes, at most `handlesMax` handles.
    package init(
        keyGroups: KeyGroupRange, keyGroupCount: UInt32, epoch: UInt64, writer: String, server: [UInt8], tree: UInt64,
        generation: UInt64, base: Base, held: [String] = []
    ) {
        precondition(server.count == TreeRecord.serverBytes, "a server id of \(server.count) bytes")
        self.keyGroups = keyGroups
        self.keyGroupCount = keyGroupCount
        self.epoch = epoch
        self.writer = writer
        self.server = server
        self.tree = tree
        self.generation = generation
        self.base = base
        self.held = held
    }

    package static var kind: MetadataRecordKind { .tree }
    package static var version: UInt8 { 1 }

    package func writeBody(into out: inout ByteWriter) {
        out.writeInteger(keyGroups.first)
        out.writeInteger(keyGroups.last)
        out.writeInteger(keyGroupCount)
        out.writeInteger(epoch)
        out.writeUnicode(writer)
        out.writeBytes(server)
        out.writeInteger(tree)
        out.writeInteger(generation)
        out.writeInteger(base.epoch)
        out.writeInteger(base.sequence)
        for list in [base.handles, held] {
            out.writeInteger(UInt32(list.count))
            for text in list { out.writeUnicode(text) }
        }
    }

    package static func read(_ body: MetadataRecordBody) throws(CorruptionError) -> TreeRecord {
        try body.decode { (fields: inout RecordFields) throws(CorruptionError) in
            let first = try fields.integer("the first key group", as: UInt16.self)
            let last = try fields.integer("the last key group", as: UInt16.self)
            let count = try fields.integer("the number of key groups", as: UInt32.self)
            guard first <= last, UInt32(last) < count else {
                throw fields.damaged("key groups \(first)...\(last) of \(count)")
            }
            let epoch = try fields.integer("the epoch", as: UInt64.self)
            let writer = try fields.unicode("the writer", max: textBytesMax)
            let server = try fields.bytes(serverBytes, "the server")
            let tree = try fields.integer("the tree", as: UInt64.self)
            let generation = try fields.integer("the generation", as: UInt64.self)
            let baseEpoch = try fields.integer("the base's epoch", as: UInt64.self)
            let baseSequence = try fields.integer("the base's sequence", as: UInt64.self)
            let handles = try fields.unicodes("the base's handles", max: handlesMax, bytesMax: textBytesMax)
            let held = try fields.unicodes("held handles", max: handlesMax, bytesMax: textBytesMax)
            return TreeRecord(
                keyGroups: KeyGroupRange(first: first, last: last), keyGroupCount: count, epoch: epoch, writer: writer,
                server: server, tree: tree, generation: generation,
                base: Base(epoch: baseEpoch, sequence: baseSequence, handles: handles), held: held)
        }
    }
}

/// A part of what servers share about a store: its states, or one of its dictionaries, in the format of a server's catalog.
///
/// u32 bytes ‖ bytes
package struct CatalogRecord: MetadataRecord {
    package let bytes: [UInt8]

    package init(bytes: [UInt8]) { self.bytes = bytes }

    package static var kind: MetadataRecordKind { .catalog }
    package static var version: UInt8 { 1 }

    package func writeBody(into out: inout ByteWriter) {
        out.writeInteger(UInt32(bytes.count))
        out.writeBytes(bytes)
    }

    package static func read(_ body: MetadataRecordBody) throws(CorruptionError) -> CatalogRecord {
        try body.decode { (fields: inout RecordFields) throws(CorruptionError) in
            let count = try fields.count("the number of bytes", of: 1)
            return CatalogRecord(bytes: try fields.bytes(count, "the bytes"))
        }
    }
}

extension RecordFields {
    fileprivate mutating func unicode(_ field: String, max: Int) throws(CorruptionError) -> String {
        let count = Int(try integer("the length of \(field)", as: UInt16.self))
        guard count <= max else { throw damaged("\(field) has \(count) bytes, more than \(max)") }
        guard let text = String(validating: try bytes(count, field), as: UTF8.self) else {
            throw damaged("\(field) is not UTF-8")
        }
        return text
    }

    fileprivate mutating func unicodes(
        _ field: String, max: Int, bytesMax: Int
    ) throws(CorruptionError) -> [String] {
        let count = try count(field, of: 2)
        guard count <= max else { throw damaged("\(field) are \(count), more than \(max)") }
        var texts: [String] = []
        for _ in 0..<count { texts.append(try unicode(field, max: bytesMax)) }
        return texts
    }
}

extension ByteWriter {
    fileprivate mutating func writeUnicode(_ text: String) {
        writeInteger(UInt16(text.utf8.count))
        writeBytes(text.utf8)
    }
}
