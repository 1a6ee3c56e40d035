// `cistern token`: makes a token and its line for the tokens file. The token is printed once and kept nowhere.

internal import ArgumentParser
internal import CisternDaemon
internal import CisternServer
internal import CisternTransport

struct TokenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token",
        abstract: "Make a token for clients of a server with tokens_file.",
        discussion: """
            Prints the token, which goes to the client and is kept nowhere else, and the line for the server's tokens file. The \
            server reads the file again within 10 s.
            """)

    @Argument(help: "Name of the token, for logs: who uses it.") var name: String
    @Option(
        help: """
            What it may do: admin, read:PATTERN, write:PATTERN (write includes read), separated by commas. A pattern is a \
            store's name, or the beginning of names with * behind it.
            """)
    var scopes = "write:*"

    func run() throws {
        do {
            let made = try NewToken(name: name, scopes: scopes)
            print("token: \(made.token)")
            print("line for the tokens file:")
            print(made.line)
        } catch {
            throw ValidationError("\(error)")
        }
    }
}
