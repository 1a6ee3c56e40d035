// What one client may have outstanding: requests, and KiB of their bodies. Pure.

internal import CisternPrimitives

struct CreditAccount {
    let requestsMax: Int
    let kibMax: Int
    private(set) var requests = 0
    private(set) var kib = 0

    /// False when the request goes beyond the credit; nothing is taken then.
    mutating func take(kib cost: Int) -> Bool {
        guard requests < requestsMax, kib + cost <= kibMax else { return false }
        requests += 1
        kib += cost
        return true
    }

    mutating func giveBack(kib cost: Int) {
        invariant(requests > 0 && kib >= cost, "a request was answered twice")
        requests -= 1
        kib -= cost
    }
}
