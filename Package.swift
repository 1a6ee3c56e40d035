// swift-tools-version: 6.2
import PackageDescription

// Settings, once. Product code compiles with strict memory safety; tests do not, because the expansion of `#expect`
// does not pass it. Generated protobuf code takes neither.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .enableExperimentalFeature("Lifetimes"),
]
let testing: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

let package = Package(
    name: "cistern",
    products: [
        .library(name: "CisternPrimitives", targets: ["CisternPrimitives"]),
        .library(name: "CisternClient", targets: ["CisternClient"]),
        .executable(name: "cistern", targets: ["cistern"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0", traits: []),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.0.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
    ],
    targets: [
        // Tier 0: C
        .target(name: "CCisternShims"),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
        .systemLibrary(name: "CLZ4", pkgConfig: "liblz4", providers: [.apt(["liblz4-dev"])]),

        // Tier 1
        .target(name: "CisternPrimitives", dependencies: ["CCisternShims"], swiftSettings: strict),

        // Tier 2
        .target(
            name: "CisternFileSystem", dependencies: ["CisternPrimitives", "CCisternShims"], swiftSettings: strict),
        .target(
            name: "CisternCompression", dependencies: ["CisternPrimitives", "CZstd", "CLZ4"], swiftSettings: strict),
        .target(
            name: "CisternWireMessages", dependencies: [.product(name: "SwiftProtobuf", package: "swift-protobuf")],
            swiftSettings: [.swiftLanguageMode(.v6)]),
        .target(
            name: "CisternWire",
            dependencies: [
                "CisternPrimitives", "CisternWireMessages", .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ], swiftSettings: strict),

        .target(name: "CisternLogProtocol", dependencies: ["CisternPrimitives"], swiftSettings: strict),

        // Tier 3
        .target(
            name: "CisternLogWire", dependencies: ["CisternLogProtocol", "CisternPrimitives", "CisternWire"],
            swiftSettings: strict),
        .target(
            name: "CisternTransport",
            dependencies: [
                "CisternPrimitives", "CisternWire", "CisternWireMessages",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: strict),
        .target(
            name: "CisternLSM", dependencies: ["CisternPrimitives", "CisternFileSystem", "CCisternShims"],
            swiftSettings: strict),

        .target(
            name: "CisternSnapshotStore", dependencies: ["CisternPrimitives", "CisternFileSystem"],
            swiftSettings: strict),

        .target(
            name: "CisternSnapshotStoreS3",
            dependencies: [
                "CisternFileSystem", "CisternPrimitives", "CisternSnapshotStore",
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ], swiftSettings: strict),

        .target(
            name: "CisternMetadata", dependencies: ["CisternFileSystem", "CisternLogProtocol", "CisternPrimitives"],
            swiftSettings: strict),

        // Tier 4
        .target(
            name: "CisternLogNetwork",
            dependencies: [
                "CisternLogProtocol", "CisternLogWire", "CisternPrimitives", "CisternTransport", "CisternWire",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: strict),
        .target(
            name: "CisternChangelog",
            dependencies: [
                "CisternLogProtocol", "CisternLogWire", "CisternMetadata", "CisternPrimitives", "CisternTransport",
                "CisternWire",
                .product(name: "NIOCore", package: "swift-nio"),
            ], swiftSettings: strict),
        .target(
            name: "CisternLogNode", dependencies: ["CisternLogProtocol", "CisternFileSystem", "CisternPrimitives"],
            swiftSettings: strict),

        .target(
            name: "CisternMetadataEtcd",
            dependencies: [
                "CisternLogProtocol", "CisternMetadata", "CisternTransport",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ], swiftSettings: strict),

        .target(
            name: "CisternDaemon",
            dependencies: [
                "CisternFileSystem", "CisternMetadata", "CisternMetadataEtcd", "CisternPrimitives", "CisternTransport",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: strict),

        // Tier 5
        .target(
            name: "CisternLogRepair",
            dependencies: [
                "CisternChangelog", "CisternLogNode", "CisternLogProtocol", "CisternMetadata", "CisternPrimitives",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: strict),
        .target(
            name: "CisternServer",
            dependencies: [
                "CisternPrimitives", "CisternFileSystem", "CisternLSM", "CisternSnapshotStore",
                "CisternSnapshotStoreS3", "CisternWire", "CisternWireMessages", "CisternTransport",
                "CisternLogProtocol", "CisternMetadata", "CisternMetadataEtcd", "CisternChangelog",
                "CisternDaemon",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ], swiftSettings: strict),

        .target(
            name: "CisternClient",
            dependencies: [
                "CisternCompression", "CisternPrimitives", "CisternTransport", "CisternWire", "CisternWireMessages",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ], swiftSettings: strict),

        .target(
            name: "CisternLogServer",
            dependencies: [
                "CisternChangelog", "CisternDaemon", "CisternFileSystem", "CisternLogNetwork", "CisternLogNode",
                "CisternLogProtocol", "CisternLogRepair", "CisternMetadata", "CisternMetadataEtcd", "CisternPrimitives",
                "CisternTransport",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: strict),

        // Examples
        .target(
            name: "FlightsExample",
            dependencies: [
                "CisternClient", "CisternPrimitives", "CZstd",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Examples/flights",
            exclude: ["README.md", "truth.sql", "flights.csv.zst"],
            swiftSettings: strict),

        // Programs
        .executableTarget(
            name: "cistern",
            dependencies: [
                "CisternDaemon", "CisternLogServer", "CisternServer", "CisternTransport", "CisternLSM",
                "CisternFileSystem",
                "CisternSnapshotStore", "CisternSnapshotStoreS3", "CisternPrimitives", "FlightsExample",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict),

        // Benchmarks
        .target(name: "CBenchShims", path: "Benchmarks/Shims"),
        .target(
            name: "CisternBenchKit",
            dependencies: ["CisternPrimitives", "CisternCompression", "CZstd", "CBenchShims"], path: "Benchmarks/Kit",
            swiftSettings: testing),
        .executableTarget(
            name: "cistern-bench",
            dependencies: [
                "CisternBenchKit", "CisternLSM", "CisternFileSystem", "CisternPrimitives", "CisternCompression",
                "CZstd",
                "CBenchShims", .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], path: "Benchmarks/Suites", swiftSettings: testing),
        .executableTarget(
            name: "cistern-bench-remote",
            dependencies: [
                "CisternBenchKit", "CisternClient", "CisternPrimitives", "CBenchShims",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], path: "Benchmarks/Remote", swiftSettings: testing),

        .executableTarget(
            name: "cistern-bench-changelog",
            dependencies: [
                "CisternBenchKit", "CisternChangelog", "CisternClient", "CisternFileSystem", "CisternLogNetwork",
                "CisternLogNode", "CisternLogProtocol", "CisternPrimitives", "CisternTransport",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], path: "Benchmarks/Changelog", swiftSettings: testing),

        // Tests
        .testTarget(
            name: "EndToEndTests",
            dependencies: [
                "CisternChangelog", "CisternClient", "CisternDaemon", "CisternLogProtocol", "CisternLogServer",
                "CisternMetadata", "CisternMetadataEtcd", "CisternPrimitives", "CisternTestKit", "CisternTransport",
                "FlightsExample",
                "cistern",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ], swiftSettings: testing),
        .testTarget(name: "FlightsExampleTests", dependencies: ["FlightsExample", "CZstd"], swiftSettings: testing),
        .target(name: "CAllocationCounter", path: "Tests/CAllocationCounter"),
        .target(name: "CSanitizerSupport", path: "Tests/CSanitizerSupport"),
        .target(
            name: "CisternTestKit",
            dependencies: [
                "CisternPrimitives", "CisternFileSystem", "CisternLSM", "CisternTransport", "CAllocationCounter",
                "CSanitizerSupport",
            ],
            path: "Tests/CisternTestKit", swiftSettings: testing),
        .target(
            name: "FuzzTargets",
            dependencies: [
                "CisternClient", "CisternCompression", "CisternFileSystem", "CisternLSM", "CisternLogProtocol",
                "CisternDaemon", "CisternLogNode", "CisternLogWire", "CisternMetadata", "CisternPrimitives",
                "CisternServer", "CisternSnapshotStore", "CisternSnapshotStoreS3", "CisternWire",
                "CisternWireMessages", "CisternTestKit",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ],
            path: "Tests/FuzzTargets", exclude: ["Found"], swiftSettings: testing),
        .testTarget(
            name: "FuzzTargetsTests", dependencies: ["FuzzTargets", "CisternPrimitives", "CisternTestKit"],
            swiftSettings: testing),
        .testTarget(
            name: "CisternFileSystemTests", dependencies: ["CisternFileSystem", "CisternPrimitives", "CisternTestKit"],
            swiftSettings: testing),
        .testTarget(
            name: "CisternPrimitivesTests", dependencies: ["CisternPrimitives", "CisternTestKit"],
            swiftSettings: testing),
        .testTarget(
            name: "CisternClientTests",
            dependencies: [
                "CisternClient", "CisternCompression", "CisternPrimitives", "CisternTransport", "CisternWire",
                "CisternWireMessages", "CisternDaemon", "CisternServer", "CisternTestKit",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: testing),
        .testTarget(
            name: "CisternCompressionTests", dependencies: ["CisternCompression", "CisternPrimitives"],
            swiftSettings: testing),
        .testTarget(
            name: "CisternServerTests",
            dependencies: [
                "CisternDaemon", "CisternServer", "CisternPrimitives", "CisternFileSystem", "CisternLSM",
                "CisternSnapshotStore", "CisternSnapshotStoreS3", "CisternTransport", "CisternWire",
                "CisternLogProtocol", "CisternLogNode",
                "CisternLogNetwork", "CisternMetadata", "CisternChangelog",
                "CisternWireMessages", "CisternTestKit", "S3Double", "cistern",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ], swiftSettings: testing),
        .target(
            name: "S3Double",
            dependencies: [
                "CisternPrimitives", "CisternSnapshotStoreS3", "CisternTransport",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ], path: "Tests/S3Double", swiftSettings: testing),
        .testTarget(
            name: "CisternSnapshotStoreTests",
            dependencies: [
                "CisternSnapshotStore", "CisternSnapshotStoreS3", "CisternFileSystem", "CisternPrimitives",
                "CisternTestKit", "CisternTransport", "S3Double",
            ], swiftSettings: testing),
        .testTarget(
            name: "CisternWireTests",
            dependencies: [
                "CisternPrimitives", "CisternWire", "CisternWireMessages",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ], swiftSettings: testing),
        .target(
            name: "LogSimulator", dependencies: ["CisternLogProtocol", "CisternPrimitives"], path: "Tests/LogSimulator",
            swiftSettings: testing),
        .executableTarget(
            name: "cistern-simulator",
            dependencies: [
                "LogSimulator", "CisternLogProtocol",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], path: "Tests/LogSimulatorCommand", swiftSettings: testing),
        .testTarget(
            name: "CisternLogNodeTests",
            dependencies: [
                "CisternLogNode", "CisternLogProtocol", "CisternFileSystem", "CisternPrimitives", "CisternTestKit",
            ], swiftSettings: testing),
        .testTarget(
            name: "CisternLogServerTests",
            dependencies: [
                "CisternDaemon", "CisternFileSystem", "CisternLogNode", "CisternLogProtocol", "CisternLogServer",
                "CisternMetadata", "CisternPrimitives", "CisternTestKit",
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: testing),
        .testTarget(
            name: "LogSimulatorTests", dependencies: ["LogSimulator", "CisternLogProtocol", "CisternTestKit"],
            swiftSettings: testing),
        .testTarget(
            name: "CisternLogProtocolTests", dependencies: ["CisternLogProtocol", "CisternPrimitives"],
            swiftSettings: testing),
        .testTarget(
            name: "CisternLogWireTests",
            dependencies: [
                "CisternLogProtocol", "CisternLogWire", "CisternPrimitives", "CisternTestKit", "CisternWire",
            ], swiftSettings: testing),
        .testTarget(
            name: "CisternMetadataTests",
            dependencies: [
                "CisternFileSystem", "CisternLogProtocol", "CisternMetadata", "CisternMetadataEtcd",
                "CisternPrimitives",
                "CisternTestKit", "CisternTransport",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ], swiftSettings: testing),
        .testTarget(
            name: "CisternChangelogTests",
            dependencies: [
                "CisternChangelog", "CisternFileSystem", "CisternLogNetwork", "CisternLogNode", "CisternLogProtocol",
                "CisternLogWire", "CisternPrimitives", "CisternTestKit", "CisternTransport", "CisternWire",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ], swiftSettings: testing),
        .testTarget(
            name: "CisternLogRepairTests",
            dependencies: [
                "CisternChangelog", "CisternFileSystem", "CisternLogNetwork", "CisternLogNode", "CisternLogProtocol",
                "CisternLogRepair", "CisternMetadata", "CisternMetadataEtcd", "CisternPrimitives", "CisternTestKit",
                "CisternTransport",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: testing),
        .testTarget(
            name: "CisternLSMTests",
            dependencies: ["CisternLSM", "CisternFileSystem", "CisternPrimitives", "CisternTestKit"],
            swiftSettings: testing),
        .testTarget(
            name: "CisternEngineTests",
            dependencies: ["CisternLSM", "CisternFileSystem", "CisternPrimitives", "CisternTestKit"],
            swiftSettings: testing),
        .testTarget(
            name: "CisternTransportTests",
            dependencies: [
                "CisternPrimitives", "CisternWire", "CisternWireMessages", "CisternTransport",
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"), .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: testing),
    ]
)

// libFuzzer has a `main` of its own, so its program is in the package only when it is asked for (`make fuzz`).
if Context.environment["CISTERN_FUZZ"] != nil {
    package.targets.append(
        .executableTarget(
            name: "cistern-fuzz", dependencies: ["FuzzTargets"], path: "Tests/Fuzz", swiftSettings: testing))
}
