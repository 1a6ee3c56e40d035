// The token of a request to the admin port: `Authorization: Bearer TOKEN`, or Basic with the token as the password, which is what a
// browser asks for.

internal import FoundationEssentials

enum HTTPCredentials {
    static let challenge = "Basic realm=\"cistern\", charset=\"UTF-8\""
    private static let headerBytesMax = 4096

    /// nil when the header has none.
    static func token(authorization header: String?) -> String? {
        guard let header, header.utf8.count <= headerBytesMax, let space = header.firstIndex(of: " ") else {
            return nil
        }
        let rest = header[header.index(after: space)...].drop { $0 == " " }
        switch header[..<space].lowercased() {
        case "bearer": return rest.isEmpty ? nil : String(rest)
        case "basic":
            guard let data = Data(base64Encoded: String(rest)) else { return nil }
            let text = String(decoding: data, as: UTF8.self)
            guard let colon = text.firstIndex(of: ":") else { return nil }
            let password = text[text.index(after: colon)...]
            return password.isEmpty ? nil : String(password)
        default: return nil
        }
    }
}
