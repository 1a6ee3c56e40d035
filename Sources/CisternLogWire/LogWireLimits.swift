// Every limit of the messages of log nodes, by name. proto-spec/log-wire.md repeats the table; a test compares the two.

internal import CisternLogProtocol
internal import CisternWire

package enum LogWireLimits {
    /// Longest entry: an ADD fits the default frame, and so does an answer that holds nothing else.
    package static let entryBytesMax = WireLimits.valueBytesMax
    /// Bodies of one answer to a READ, unless its first entry alone is longer. A request that allows more is answered with this much.
    package static let readBytesMax = 16 << 20
    /// Entries of one READ.
    package static let readEntriesMax = ReadRequest.countMax
    /// Highest ledger id.
    package static let ledgerIDMax = UInt64(Int64.max >> 1)
    /// Highest entry id: a read of so many entries from here on has no id that overflows.
    package static let entryIDMax = Int64.max >> 1
}
