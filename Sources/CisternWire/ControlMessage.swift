// Control messages between generated types and frame bodies. They are sent seldom: plain copies.

internal import CisternPrimitives
package import SwiftProtobuf

package enum ControlMessage {
    package static func encode(_ message: some Message) -> [UInt8] {
        do {
            return try message.serializedBytes()
        } catch {
            // proto3 has no required fields; only a message beyond 2 GiB can fail here.
            invariantFailed("a control message does not encode: \(error)", file: #fileID, line: #line)
        }
    }

    /// Decodes any bytes; unknown fields are skipped.
    package static func decode<M: Message>(
        _ type: M.Type, from body: UnsafeRawBufferPointer
    ) throws(WireError) -> M {
        let name = M.protoMessageName
        guard body.count <= WireLimits.controlBodyBytesMax else {
            throw .limitExceeded(
                message: name, limit: "controlBodyBytesMax", max: WireLimits.controlBodyBytesMax, found: body.count)
        }
        do {
            return try M(serializedBytes: unsafe [UInt8](body))
        } catch {
            throw .malformed(message: name, offset: 0, detail: "\(error)")
        }
    }
}
