// A second reader of proto-spec/sst.md, written from the page and not from the product's code: it finds the blocks of a
// table, so that vectors can be annotated, and damage can be given a valid checksum.

import CisternPrimitives

struct TableAnatomy {
    struct Block {
        var offset: Int
        var payloadSize: Int
        var type: UInt8
        var end: Int { offset + payloadSize + 5 }
    }

    var blocks: [Block] = []
    let bytes: [UInt8]

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        let footer = bytes.count - 64
        let top = Block(offset: Int(u64(footer)), payloadSize: Int(u32(footer + 16)), type: 4)
        let properties = Block(offset: Int(u64(footer + 8)), payloadSize: Int(u32(footer + 20)), type: 5)
        let topFooter = top.offset + top.payloadSize - 16
        let partitions = Int(u32(topFooter))
        let rows = top.offset + Int(u32(topFooter + 4)) + partitions * 4
        for partition in 0..<partitions {
            let row = rows + partition * 28
            let index = Block(offset: Int(u64(row)), payloadSize: Int(u32(row + 16)), type: 2)
            let filter = Block(offset: Int(u64(row + 8)), payloadSize: Int(u32(row + 20)), type: 3)
            let indexFooter = index.offset + index.payloadSize - 32
            let count = Int(u32(indexFooter))
            let ends = index.offset + Int(u32(indexFooter + 4)) + count * 4
            let first = Int(u64(indexFooter + 8))
            for block in 0..<count {
                let start = block == 0 ? 0 : Int(u32(ends + (block - 1) * 4))
                let size = Int(u32(ends + block * 4)) - start - 5
                blocks.append(Block(offset: first + start, payloadSize: size, type: 1))
            }
            if filter.payloadSize > 0 { blocks.append(filter) }
            blocks.append(index)
        }
        blocks += [top, properties]
    }

    func u16(_ offset: Int) -> UInt16 { UInt16(bytes[offset]) | UInt16(bytes[offset + 1]) << 8 }
    func u32(_ offset: Int) -> UInt32 { UInt32(u16(offset)) | UInt32(u16(offset + 2)) << 16 }
    func u64(_ offset: Int) -> UInt64 { UInt64(u32(offset)) | UInt64(u32(offset + 4)) << 32 }

    func payload(_ block: Block) -> ArraySlice<UInt8> { bytes[block.offset..<(block.offset + block.payloadSize)] }

    static func checksum(payload: [UInt8], type: UInt8, offset: Int) -> UInt32 {
        var writer = ByteWriter()
        writer.writeBytes(payload)
        writer.writeUInt8(type)
        writer.writeInteger(UInt64(offset))
        return CRC32C.checksum(writer.bytes)
    }

    /// The file with the payload of one block replaced by another of the same size, under a valid checksum.
    func replacing(_ block: Block, with payload: [UInt8]) -> [UInt8] {
        var changed = bytes
        changed.replaceSubrange(block.offset..<(block.offset + block.payloadSize), with: payload)
        let crc = TableAnatomy.checksum(payload: payload, type: block.type, offset: block.offset)
        for index in 0..<4 { changed[block.end - 4 + index] = UInt8(truncatingIfNeeded: crc >> UInt32(8 * index)) }
        return changed
    }
}
