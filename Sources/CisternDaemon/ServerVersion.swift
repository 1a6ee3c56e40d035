/// What the program calls itself, in `--version` and in every hello.
package enum ServerVersion {
    package static let number = "0.1.0"
    package static let name = "cistern/\(number)"
}
