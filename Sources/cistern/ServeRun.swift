// Running the server: until it serves, `cistern serve` can only check its settings.

internal import ArgumentParser
internal import CisternServer

func serve(_ configuration: ServerConfiguration) async throws {
    throw ValidationError("this build checks settings only: run cistern serve --check")
}
