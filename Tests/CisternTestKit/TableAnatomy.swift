// A second reader of proto-spec/sst.md, written from the page and not from the product's code: it finds the blocks of a
// table, so that vectors can be annotated, and damage can be given a valid checksum.

import CisternPrimitives

package struct TableAnatomy {
    package struct Block {
        package var offset: Int
        package var payloadSize: Int
        package var type: UInt8
        package var end: Int { offset + payloadSize + 5 }
    }

    package private(set) var blocks: [Block] = []
    package let bytes: [UInt8]

    package init(_ bytes: [UInt8]) {
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

    package func u16(_ offset: Int) -> UInt16 { UInt16(bytes[offset]) | UInt16(bytes[offset + 1]) << 8 }
    package func u32(_ offset: Int) -> UInt32 { UInt32(u16(offset)) | UInt32(u16(offset + 2)) << 16 }
    package func u64(_ offset: Int) -> UInt64 { UInt64(u32(offset)) | UInt64(u32(offset + 4)) << 32 }

    package func payload(_ block: Block) -> ArraySlice<UInt8> {
        bytes[block.offset..<(block.offset + block.payloadSize)]
    }

    package static func checksum(payload: [UInt8], type: UInt8, offset: Int) -> UInt32 {
        var writer = ByteWriter()
        writer.writeBytes(payload)
        writer.writeUInt8(type)
        writer.writeInteger(UInt64(offset))
        return CRC32C.checksum(writer.bytes)
    }

    /// The file with the payload of one block replaced by another of the same size, under a valid checksum.
    package func replacing(_ block: Block, with payload: [UInt8]) -> [UInt8] {
        var changed = bytes
        changed.replaceSubrange(block.offset..<(block.offset + block.payloadSize), with: payload)
        TableAnatomy.seal(&changed, block)
        return changed
    }

    /// A file of the same build: every checksum set to what the bytes have become.
    package func resealed(_ file: [UInt8]) -> [UInt8] {
        var changed = file
        for block in blocks { TableAnatomy.seal(&changed, block) }
        let footer = changed.count - 64
        setChecksum(&changed, at: 12, of: 0..<12)
        setChecksum(&changed, at: footer + 52, of: footer..<(footer + 52))
        return changed
    }

    private static func seal(_ file: inout [UInt8], _ block: Block) {
        let payload = Array(file[block.offset..<(block.offset + block.payloadSize)])
        setInteger(&file, at: block.end - 4, checksum(payload: payload, type: block.type, offset: block.offset))
    }
}

/// Writes a number in its place, little-endian.
package func setInteger(_ bytes: inout [UInt8], at offset: Int, _ value: UInt32) {
    for index in 0..<4 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
}

package func setChecksum(_ bytes: inout [UInt8], at offset: Int, of range: Range<Int>) {
    setInteger(&bytes, at: offset, CRC32C.checksum(Array(bytes[range])))
}
