// What a program says about a state when it registers it.

internal import CisternCompression

/// When values of a state stop being visible.
public struct TimeToLive: Hashable, Sendable {
    public enum Clock: Hashable, Sendable {
        /// The server's wall clock.
        case processing
        /// The session's watermark (`KeyedStateSession.advanceWatermark`). Set it before the first write: until then it is 0,
        /// and a value is gone with the first watermark later than its time to live.
        case event
    }

    /// What starts the time anew.
    public enum Refresh: Hashable, Sendable {
        case onWrite
        /// Reads too: each read that finds a value writes it again, which the write buffer absorbs.
        case onReadAndWrite
    }

    public var clock: Clock
    public var milliseconds: UInt64
    public var refresh: Refresh

    public static func processing(milliseconds: UInt64, refresh: Refresh = .onWrite) -> TimeToLive {
        TimeToLive(clock: .processing, milliseconds: milliseconds, refresh: refresh)
    }

    public static func event(milliseconds: UInt64, refresh: Refresh = .onWrite) -> TimeToLive {
        TimeToLive(clock: .event, milliseconds: milliseconds, refresh: refresh)
    }
}

/// Settings of one state. They may change from one run of a program to the next: stored values say themselves how they
/// were compressed, and a changed time to live holds for them too, counted from when they were written. What has expired by
/// then stays expired; values from before the state had a time to live count from when it got one. A session changes it with
/// `KeyedStateSession.setTimeToLive`.
public struct StateOptions: Hashable, Sendable {
    /// How values are compressed before they leave the worker.
    public enum Codec: Hashable, Sendable {
        case none
        /// Fast; with a dictionary the best choice for values below about 1 KB.
        case lz4
        /// Smaller; level -7 … 19, 1 is a good start.
        case zstd(level: Int)
    }

    public enum Dictionary: Hashable, Sendable {
        case none
        /// Trained from the state's own values once there are enough of them, about 100 times its size.
        /// 1,024 … 65,536 bytes; 8,192 is a good start.
        case trained(bytes: Int)
    }

    public var ttl: TimeToLive?
    public var codec: Codec
    public var dictionary: Dictionary

    public init(ttl: TimeToLive? = nil, codec: Codec = .none, dictionary: Dictionary = .none) {
        self.ttl = ttl
        self.codec = codec
        self.dictionary = dictionary
    }

    var compression: Compression {
        switch codec {
        case .none: .none
        case .lz4: .lz4
        case .zstd(let level): .zstd(level: level)
        }
    }

    func validate(state: String) throws(ClientError) {
        if case .zstd(let level) = codec, level < Compression.zstdLevelMin || level > Compression.zstdLevelMax {
            throw ClientError(
                .limitExceeded, .fixTheCall,
                "state \(state): zstd level \(level); it must be within \(Compression.zstdLevelMin)..."
                    + "\(Compression.zstdLevelMax)")
        }
        if case .trained(let bytes) = dictionary,
            bytes < DictionaryTraining.sizeMin || bytes > CompressionDictionary.sizeMax
        {
            throw ClientError(
                .limitExceeded, .fixTheCall,
                "state \(state): a dictionary of \(bytes) bytes; it must be within \(DictionaryTraining.sizeMin)..."
                    + "\(CompressionDictionary.sizeMax)")
        }
        if case .trained = dictionary, codec == .none {
            throw ClientError(
                .invalidArgument, .fixTheCall,
                "state \(state): a dictionary needs a codec; choose .lz4 or .zstd, or no dictionary")
        }
        if let ttl, ttl.milliseconds == 0 || ttl.milliseconds > TimeToLive.millisecondsMax {
            throw ClientError(
                .limitExceeded, .fixTheCall,
                "state \(state): a time to live of \(ttl.milliseconds) ms; it must be within 1..."
                    + "\(TimeToLive.millisecondsMax)")
        }
    }
}

extension TimeToLive {
    /// A thousand years: keeps sums of clock and time to live far below bit 63.
    public static let millisecondsMax: UInt64 = 1000 * 366 * 24 * 3600 * 1000
}
