// What came back: a header and an owned body.

package import CisternWire
package import NIOCore
package import SwiftProtobuf

package struct Reply: Sendable {
    package let header: FrameHeader
    package let body: ByteBuffer

    package init(header: FrameHeader, body: ByteBuffer) {
        self.header = header
        self.body = body
    }

    /// The body in place: pointers, and views decoded from them, are valid until `read` returns.
    package func withBody<R, E: Error>(_ read: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        let result: Result<R, E> = unsafe body.withUnsafeReadableBytes { bytes in
            do throws(E) {
                return unsafe .success(try read(bytes))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// The body as a control message.
    package func decode<M: Message>(_ type: M.Type) throws(TransportError) -> M {
        do {
            return unsafe try withBody { (bytes) throws(WireError) in
                unsafe try ControlMessage.decode(type, from: bytes)
            }
        } catch {
            throw .protocolViolation(error)
        }
    }
}
