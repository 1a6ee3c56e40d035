// List state: appends without a read, as Flink's merges are, and every list read once at the end. An operation is an append;
// the reads and all background work are in its cost.

import CisternPrimitives

struct ListCases: CaseGroup {
    static let elementBytes = 40
    static let elementsPerList = 20

    let name = "list"
    let cases = ["list_append"]

    func run(_ context: CaseContext) throws {
        let lists = context.scaled(100_000)
        let workload = Workload(entries: lists, seed: context.seed)
        let order = Orders.shuffled(lists * ListCases.elementsPerList, seed: context.seed)
        let store = try context.open("list")
        try context.measure("list_append", operations: order.count, store) {
            let batch = WriteBatch(entriesMax: PointCases.batchEntries)
            for element in order {
                let list = UInt64(element) % UInt64(lists)
                let (key, value) = batch.add(.append, keyBytes: Workload.keyBytes, valueBytes: ListCases.elementBytes)
                workload.valueKey(list, state: Workload.listState, into: key)
                workload.value(list, UInt64(element), bytes: ListCases.elementBytes, into: value)
                if batch.count == PointCases.batchEntries {
                    try store.write(batch)
                    batch.reset()
                }
            }
            if batch.count > 0 { try store.write(batch) }
            try store.settle()
            try withKey { key in
                for list in 0..<UInt64(lists) {
                    workload.valueKey(list, state: Workload.listState, into: key)
                    try workload.check(
                        try store.get(UnsafeRawBufferPointer(start: key, count: Workload.keyBytes)), list,
                        bytes: ListCases.elementBytes * ListCases.elementsPerList)
                }
            }
        }
        store.close()
    }
}
