// When to ask whether the peer is there, and when to give it up. Pure: it is told of ticks, not of time.

struct KeepAlive {
    enum Action: Equatable {
        case nothing
        case ping
        case giveUp
    }

    private let missedMax: Int
    private var sawInbound = true
    private var silentTicks = 0

    init(missedMax: Int) { self.missedMax = missedMax }

    /// Any bytes from the peer count as life.
    mutating func inbound() { sawInbound = true }

    /// Called once an interval.
    mutating func tick() -> Action {
        if sawInbound {
            sawInbound = false
            silentTicks = 0
            return .nothing
        }
        silentTicks += 1
        return silentTicks > missedMax ? .giveUp : .ping
    }
}
