// Requests and answers of etcd's HTTP/JSON gateway, version 3: keys and values in base64, 64-bit numbers as text, fields of
// value zero left out of answers.

internal import CisternMetadata
internal import FoundationEssentials

/// A 64-bit number, which the gateway writes as text and JSON readers elsewhere write as a number.
struct EtcdNumber: Codable {
    let value: UInt64

    init(_ value: UInt64) { self.value = value }

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        do {
            value = try container.decode(UInt64.self)
        } catch {
            let text = try container.decode(String.self)
            // Lease ids are signed; etcd gives positive ones.
            guard let number = UInt64(text) else {
                throw DecodingError.dataCorruptedError(
                    in: container, debugDescription: "\(text.prefix(30)) is no number")
            }
            value = number
        }
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(String(value))
    }
}

struct EtcdBytes: Codable {
    let bytes: [UInt8]

    init(_ bytes: some Sequence<UInt8>) { self.bytes = Array(bytes) }

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let data = Data(base64Encoded: try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "a value is not base64")
        }
        bytes = [UInt8](data)
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(Data(bytes).base64EncodedString())
    }

    var text: String { String(decoding: bytes, as: UTF8.self) }
}

// MARK: Requests

struct EtcdRange: Encodable {
    var key: EtcdBytes
    var rangeEnd: EtcdBytes?
    var limit: Int?
    var keysOnly: Bool?

    enum CodingKeys: String, CodingKey {
        case key, limit
        case rangeEnd = "range_end"
        case keysOnly = "keys_only"
    }
}

struct EtcdPut: Encodable {
    var key: EtcdBytes
    var value: EtcdBytes
    var lease: EtcdNumber?
    /// The key keeps the lease that it has.
    var ignoreLease: Bool?

    enum CodingKeys: String, CodingKey {
        case key, value, lease
        case ignoreLease = "ignore_lease"
    }
}

struct EtcdKeyOnly: Encodable { var key: EtcdBytes }

struct EtcdOperation: Encodable {
    var requestRange: EtcdRange?
    var requestPut: EtcdPut?
    var requestDeleteRange: EtcdKeyOnly?

    enum CodingKeys: String, CodingKey {
        case requestRange = "request_range"
        case requestPut = "request_put"
        case requestDeleteRange = "request_delete_range"
    }
}

struct EtcdCompare: Encodable {
    var key: EtcdBytes
    var target: String
    var result = "EQUAL"
    var modRevision: EtcdNumber?
    var createRevision: EtcdNumber?

    enum CodingKeys: String, CodingKey {
        case key, target, result
        case modRevision = "mod_revision"
        case createRevision = "create_revision"
    }

    /// The key was last changed in `version`.
    static func version(_ version: UInt64, of key: String) -> EtcdCompare {
        EtcdCompare(key: EtcdBytes(key.utf8), target: "MOD", modRevision: EtcdNumber(version))
    }

    static func isMissing(_ key: String) -> EtcdCompare {
        EtcdCompare(key: EtcdBytes(key.utf8), target: "CREATE", createRevision: EtcdNumber(0))
    }
}

struct EtcdTransaction: Encodable {
    var compare: [EtcdCompare]
    var success: [EtcdOperation]
    var failure: [EtcdOperation]
}

struct EtcdLeaseRequest: Encodable {
    var id: EtcdNumber?
    var seconds: EtcdNumber?

    enum CodingKeys: String, CodingKey {
        case id = "ID"
        case seconds = "TTL"
    }
}

struct EtcdWatchRequest: Encodable {
    struct Create: Encodable {
        var key: EtcdBytes
        var rangeEnd: EtcdBytes
        var startRevision: EtcdNumber

        enum CodingKeys: String, CodingKey {
            case key
            case rangeEnd = "range_end"
            case startRevision = "start_revision"
        }
    }

    var create: Create

    enum CodingKeys: String, CodingKey { case create = "create_request" }
}

struct EtcdCompaction: Encodable {
    var revision: EtcdNumber
    var physical = true
}

// MARK: Answers

struct EtcdHeader: Decodable { var revision: EtcdNumber? }

struct EtcdKeyValue: Decodable {
    var key: EtcdBytes?
    var value: EtcdBytes?
    var modRevision: EtcdNumber?
    var lease: EtcdNumber?

    enum CodingKeys: String, CodingKey {
        case key, value, lease
        case modRevision = "mod_revision"
    }

    var version: UInt64 { modRevision?.value ?? 0 }

    var entry: MetadataEntry {
        MetadataEntry(
            key: key?.text ?? "", value: value?.bytes ?? [], version: version,
            lease: lease.map { MetadataLeaseID(Int64(truncatingIfNeeded: $0.value)) })
    }
}

struct EtcdRangeReply: Decodable {
    var header: EtcdHeader?
    var kvs: [EtcdKeyValue]?
    var more: Bool?
}

struct EtcdTransactionReply: Decodable {
    struct Response: Decodable {
        var range: EtcdRangeReply?

        enum CodingKeys: String, CodingKey { case range = "response_range" }
    }

    var header: EtcdHeader?
    var succeeded: Bool?
    var responses: [Response]?

    /// The version in which the failing branch found the key; nil when it is not there.
    var found: UInt64? { responses?.first?.range?.kvs?.first?.version }
}

struct EtcdLeaseReply: Decodable {
    var id: EtcdNumber?
    var seconds: EtcdNumber?
    var error: String?

    enum CodingKeys: String, CodingKey {
        case error
        case id = "ID"
        case seconds = "TTL"
    }
}

struct EtcdStreamed<Reply: Decodable>: Decodable {
    var result: Reply?
    var error: EtcdStreamError?
}

struct EtcdStreamError: Decodable {
    var code: Int?
    var message: String?

    enum CodingKeys: String, CodingKey {
        case message
        case code = "grpc_code"
    }
}

struct EtcdWatchReply: Decodable {
    struct Event: Decodable {
        var type: String?
        var kv: EtcdKeyValue?
    }

    var header: EtcdHeader?
    var canceled: Bool?
    var cancelReason: String?
    var compactRevision: EtcdNumber?
    var events: [Event]?

    enum CodingKeys: String, CodingKey {
        case header, canceled, events
        case cancelReason = "cancel_reason"
        case compactRevision = "compact_revision"
    }
}

struct EtcdNothing: Decodable {}

struct EtcdErrorReply: Decodable {
    var message: String?
    var error: String?
    var code: Int?
}
