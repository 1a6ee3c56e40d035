#!/usr/bin/env bash
# build.sh COMMAND: builds the Flink integration with javac and nothing else. Everything it makes is under .build-flink.
#   fetch         Flink from PyPI, unpacked once: .build-flink/flink
#   jar           .build-flink/cistern-flink.jar
#   examples      .build-flink/examples.jar
#   test [ARGS]   all JUnit tests, or what the console launcher's ARGS select
#   demo [ARGS]   both jobs on a local cluster, with a kill in the middle
#   bench [ARGS]  jobs on Flink's own backends and on ours in turn; see Benchmarks/README.md
#   class-path    of Flink, for other scripts
set -euo pipefail
home=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$home/../.." && pwd)
build=${CISTERN_FLINK_BUILD:-$root/.build-flink}
# shellcheck source=versions.env
source "$home/versions.env"
flink=$build/flink-$FLINK_VERSION
jar=$build/cistern-flink.jar
debian=/usr/share/java

# Flink as PyPI has it: two wheels, of which apache-flink has bin/ and conf/ and the other one the jars.
fetch() {
    [[ -f $flink/.complete ]] && return
    "$root/.ci/install-packages" unzip
    local wheels=$build/wheels
    mkdir -p "$wheels"
    echo "fetching Flink $FLINK_VERSION"
    pip download --quiet --no-deps --disable-pip-version-check -d "$wheels" \
        "apache-flink-libraries==$FLINK_VERSION" "apache-flink==$FLINK_VERSION"
    rm -rf "$flink" "$build/unpacked"
    unzip -q -o "$wheels/apache_flink_libraries-$FLINK_VERSION-*.whl" 'pyflink/*' -d "$build/unpacked"
    unzip -q -o "$wheels/apache_flink-$FLINK_VERSION-*.whl" 'pyflink/bin/*' 'pyflink/conf/*' -d "$build/unpacked"
    mv "$build/unpacked/pyflink" "$flink"
    rm -rf "$build/unpacked" "$wheels"
    # zip files carry no such bits when they were made elsewhere.
    chmod +x "$flink"/bin/*.sh "$flink/bin/flink"
    touch "$flink/.complete"
}

flink_class_path() { printf '%s:' "$flink"/lib/*.jar; }

# newer TARGET DIRECTORY...: true when a file under a directory is newer than the target, or the target is missing.
newer() {
    local target=$1
    shift
    [[ ! -e $target ]] || [[ -n $(find "$@" -newer "$target" -type f -print -quit) ]]
}

jar() {
    fetch
    newer "$jar" "$home/src/main" "$home/versions.env" || return 0
    "$root/.ci/install-packages" openjdk-17-jdk-headless
    rm -rf "$build/classes"
    mkdir -p "$build/classes"
    find "$home/src/main/java" -name '*.java' >"$build/sources"
    compile -cp "$(flink_class_path)" -d "$build/classes" @"$build/sources"
    [[ -d $home/src/main/resources ]] && cp -r "$home/src/main/resources/." "$build/classes/"
    command jar --create --file "$jar.new" -C "$build/classes" .
    mv "$jar.new" "$jar"
    echo "built $(basename "$jar")"
}

# The jobs, and what runs them on a local cluster: .build-flink/examples.jar.
examples() {
    jar
    newer "$build/examples.jar" "$home/src/examples" "$jar" || return 0
    rm -rf "$build/example-classes"
    mkdir -p "$build/example-classes"
    find "$home/src/examples/java" -name '*.java' >"$build/sources"
    compile -cp "$jar:$(flink_class_path)" -d "$build/example-classes" @"$build/sources"
    command jar --create --file "$build/examples.jar.new" -C "$build/example-classes" .
    mv "$build/examples.jar.new" "$build/examples.jar"
}

# -processing: Flink's jars bring an annotation processor for logging that claims nothing of ours.
compile() { javac --release 17 -proc:none -Xlint:all,-processing,-classfile,-path,-try -Werror "$@"; }

test_class_path() {
    printf '%s:' "$build/classes" "$build/example-classes" "$build/test-classes" "$debian"/junit-jupiter-{api,engine,params}.jar "$debian"/junit-platform-{commons,engine,launcher,console,reporting}.jar \
        "$debian"/{opentest4j,apiguardian-api,picocli,univocity-parsers,opentest4j-reporting-events,opentest4j-reporting-schema}.jar
    flink_class_path
}

tests() {
    examples
    "$root/.ci/install-packages" junit5
    if newer "$build/test-classes/.complete" "$home/src/test" "$jar" "$build/examples.jar"; then
        rm -rf "$build/test-classes"
        mkdir -p "$build/test-classes"
        find "$home/src/test/java" -name '*.java' >"$build/test-sources"
        compile -cp "$(test_class_path)" -d "$build/test-classes" @"$build/test-sources"
        [[ -d $home/src/test/resources ]] && cp -r "$home/src/test/resources/." "$build/test-classes/"
        touch "$build/test-classes/.complete"
    fi
    settings
    local selection=("$@")
    [[ ${#selection[@]} -gt 0 ]] || selection=(--scan-class-path "$build/test-classes")
    java -Xmx1g -XX:+UseSerialGC $(exports) -cp "$(test_class_path)" org.junit.platform.console.ConsoleLauncher \
        --disable-banner --details=tree --disable-ansi-colors "${selection[@]}"
}

# What tests and jobs are told.
settings() {
    "$root/.ci/install-packages" zstd sqlite3
    export CISTERN_BINARY=${CISTERN_BINARY:-$root/.build/release/cistern} CISTERN_ROOT=$root CISTERN_FLINK_HOME=$flink CISTERN_FLINK_JAR=$jar
}

demo() {
    examples
    settings
    java -Xmx256m -XX:+UseSerialGC -cp "$build/example-classes:$(flink_class_path)" io.cistern.flink.examples.Demo "$@"
}

bench() {
    examples
    settings
    if newer "$build/bench.jar" "$home/src/bench" "$build/examples.jar"; then
        rm -rf "$build/bench-classes"
        mkdir -p "$build/bench-classes"
        find "$home/src/bench/java" -name '*.java' >"$build/sources"
        compile -cp "$build/example-classes:$jar:$(flink_class_path)" -d "$build/bench-classes" @"$build/sources"
        command jar --create --file "$build/bench.jar.new" -C "$build/bench-classes" .
        mv "$build/bench.jar.new" "$build/bench.jar"
    fi
    java -Xmx256m -XX:+UseSerialGC -cp "$build/bench-classes:$build/example-classes:$(flink_class_path)" io.cistern.flink.bench.Bench "$@"
}

# What Flink opens of the JDK for itself, on Java 17.
exports() {
    local package
    for package in java.lang java.net java.io java.nio java.text java.time java.util java.util.concurrent java.util.concurrent.atomic java.util.concurrent.locks sun.nio.ch; do
        printf -- '--add-opens=java.base/%s=ALL-UNNAMED ' "$package"
    done
}

case ${1:-} in
    fetch) fetch ;;
    jar) jar ;;
    examples) examples ;;
    test) shift; tests "$@" ;;
    demo) shift; demo "$@" ;;
    bench) shift; bench "$@" ;;
    class-path) fetch; flink_class_path ;;
    *) sed -n '2,10p' "$0" | cut -c 3-; exit 1 ;;
esac
