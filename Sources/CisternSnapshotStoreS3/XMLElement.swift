// The XML that S3 servers answer with: elements with text or elements in them. Strict and small: no document types, so no entities but
// the five of XML and characters by number; attributes, comments and instructions are read over. Takes any bytes.

package struct XMLElement: Equatable, Sendable {
    /// Without a prefix.
    package let name: String
    /// The text directly in it, one piece behind the other.
    package private(set) var text = ""
    package private(set) var children: [XMLElement] = []

    /// Answers are three deep.
    package static let depthMax = 16

    fileprivate init(name: String) { self.name = name }

    /// The text of the first child of this name.
    package subscript(name: String) -> String? { children.first { $0.name == name }?.text }

    package func all(_ name: String) -> some Sequence<XMLElement> { children.lazy.filter { $0.name == name } }

    /// The root of a document.
    package static func parse(_ bytes: [UInt8]) throws(XMLDamage) -> XMLElement {
        var parser = XMLParser(bytes: bytes)
        return try parser.document()
    }

    fileprivate mutating func append(_ more: String) { text += more }
    fileprivate mutating func append(_ child: XMLElement) { children.append(child) }
}

/// Bytes that are not such a document.
package struct XMLDamage: Error, Equatable, Sendable {
    package let offset: Int
    package let detail: String
}

private struct XMLParser {
    let bytes: [UInt8]
    var offset = 0

    /// Of a name or of a number of a character.
    private static let nameBytesMax = 256

    mutating func document() throws(XMLDamage) -> XMLElement {
        // Servers send spaces while they work on a long request.
        var open: [XMLElement] = []
        while true {
            if open.isEmpty { skipSpace() } else { try readText(into: &open[open.count - 1]) }
            guard offset < bytes.count else {
                throw damage("the document ends inside of \(open.last?.name ?? "its beginning")")
            }
            if try skipAside() { continue }
            if skip("<![CDATA[") {
                guard !open.isEmpty else { throw damage("text outside of an element") }
                let end = try find("]]>")
                open[open.count - 1].append(try text(offset..<end))
                offset = end + 3
            } else if skip("</") {
                let name = try readName()
                skipSpace()
                guard skip(">") else { throw damage("the end of \(name) is not closed") }
                guard let closed = open.popLast(), closed.name == name else {
                    throw damage("\(name) ends and did not begin")
                }
                if open.isEmpty { return try end(closed) }
                open[open.count - 1].append(closed)
            } else if skip("<") {
                let element = XMLElement(name: try readName())
                let isEmpty = try skipAttributes()
                if !isEmpty {
                    guard open.count < XMLElement.depthMax else {
                        throw damage("elements are more than \(XMLElement.depthMax) deep")
                    }
                    open.append(element)
                } else if open.isEmpty {
                    return try end(element)
                } else {
                    open[open.count - 1].append(element)
                }
            } else {
                throw damage("text outside of an element")
            }
        }
    }

    private mutating func end(_ root: XMLElement) throws(XMLDamage) -> XMLElement {
        while true {
            skipSpace()
            if offset == bytes.count { return root }
            guard try skipAside() else { throw damage("something follows the document") }
        }
    }

    /// A declaration, an instruction or a comment.
    private mutating func skipAside() throws(XMLDamage) -> Bool {
        if skip("<!--") {
            offset = try find("-->") + 3
            return true
        }
        if skip("<?") {
            offset = try find("?>") + 2
            return true
        }
        return false
    }

    /// - Returns: true when the element is at its end.
    private mutating func skipAttributes() throws(XMLDamage) -> Bool {
        while true {
            skipSpace()
            if skip("/>") { return true }
            if skip(">") { return false }
            _ = try readName()
            skipSpace()
            guard skip("=") else { throw damage("an attribute has no value") }
            skipSpace()
            guard offset < bytes.count, bytes[offset] == UInt8(ascii: "\"") || bytes[offset] == UInt8(ascii: "'") else {
                throw damage("the value of an attribute is not quoted")
            }
            let quote = bytes[offset]
            guard let end = bytes[(offset + 1)...].firstIndex(of: quote) else {
                throw damage("the value of an attribute does not end")
            }
            offset = end + 1
        }
    }

    /// Up to the next `<`.
    private mutating func readText(into element: inout XMLElement) throws(XMLDamage) {
        while offset < bytes.count, bytes[offset] != UInt8(ascii: "<") {
            if bytes[offset] == UInt8(ascii: "&") {
                element.append(try readReference())
                continue
            }
            let end =
                bytes[offset...].firstIndex { $0 == UInt8(ascii: "<") || $0 == UInt8(ascii: "&") } ?? bytes.count
            element.append(try text(offset..<end))
            offset = end
        }
    }

    private mutating func readReference() throws(XMLDamage) -> String {
        let rest = bytes[(offset + 1)...].prefix(XMLParser.nameBytesMax)
        guard let end = rest.firstIndex(of: UInt8(ascii: ";")) else { throw damage("a reference does not end") }
        let name = String(decoding: bytes[(offset + 1)..<end], as: UTF8.self)
        let character: Character? =
            switch name {
            case "amp": "&"
            case "lt": "<"
            case "gt": ">"
            case "quot": "\""
            case "apos": "'"
            default: XMLParser.numbered(name)
            }
        guard let character else { throw damage("&\(name); is unknown") }
        offset = end + 1
        return String(character)
    }

    private static func numbered(_ name: String) -> Character? {
        guard name.hasPrefix("#") else { return nil }
        let isHexadecimal = name.hasPrefix("#x")
        let digits = name.dropFirst(isHexadecimal ? 2 : 1)
        // The number's initializer takes a sign as well.
        guard digits.first.map({ $0.isHexDigit }) == true else { return nil }
        return UInt32(digits, radix: isHexadecimal ? 16 : 10).flatMap(Unicode.Scalar.init).map { Character($0) }
    }

    private mutating func readName() throws(XMLDamage) -> String {
        let rest = bytes[offset...].prefix(XMLParser.nameBytesMax)
        let name = rest.prefix { byte in
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."),
                UInt8(ascii: ":"), 0x80...:
                true
            default: false
            }
        }
        guard !name.isEmpty, name.count < XMLParser.nameBytesMax else { throw damage("a name is missing or too long") }
        let text = try text(name.startIndex..<name.endIndex)
        offset = name.endIndex
        return text.split(separator: ":").last.map(String.init) ?? text
    }

    private mutating func skipSpace() {
        while offset < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[offset]) { offset += 1 }
    }

    private mutating func skip(_ token: StaticString) -> Bool {
        let length = token.utf8CodeUnitCount
        guard bytes.count - offset >= length, matches(token, at: offset) else { return false }
        offset += length
        return true
    }

    /// Where a token begins that must come.
    private func find(_ token: StaticString) throws(XMLDamage) -> Int {
        var index = offset
        while index + token.utf8CodeUnitCount <= bytes.count {
            if matches(token, at: index) { return index }
            index += 1
        }
        throw damage("\(token) is missing")
    }

    private func matches(_ token: StaticString, at index: Int) -> Bool {
        token.withUTF8Buffer { token in unsafe bytes[index..<(index + token.count)].elementsEqual(token) }
    }

    private func text(_ range: Range<Int>) throws(XMLDamage) -> String {
        guard let text = String(validating: bytes[range], as: UTF8.self) else { throw damage("text is not UTF-8") }
        return text
    }

    private func damage(_ detail: String) -> XMLDamage { XMLDamage(offset: offset, detail: detail) }
}
