#!/usr/bin/env bash
# Makes dist/ of the commit that is checked out: the binary, its SBOM, its image, the chart, and checksums. Started by `make release`.
#
# The binary is built twice, from two copies of the commit in two places and with the crates in two places, and must come out
# the same to the byte. So must SBOM, image and chart. What can differ between two builds is taken away: the time, the file
# modes, and the places of sources, crates, toolchain and output. What must be the same is pinned: rust-toolchain.toml,
# Cargo.lock. The C compiler (for ring and for linking), the C library and the tools beside them are the machine's: BUILDINFO
# says which.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
clone=$PWD
helm=${HELM:?set by make}
cargo=${CARGO:-cargo}
die() { echo "$*" >&2; exit 1; }

umask 022
changes=$(git status --porcelain)
[ -z "$changes" ] || die "there are changes that are not committed: a release is of a commit"
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[ -n "$version" ] || die "Cargo.toml has no version"
[ -z "${TAG:-}" ] || [ "$TAG" = "v$version" ] || die "the tag is $TAG, the version in Cargo.toml $version"
grep -qxF "appVersion: \"$version\"" charts/toolzz-operator/Chart.yaml || die "the chart's appVersion is not $version"

SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC CARGO_INCREMENTAL=0
# What would change the output or its place, if the machine has it set.
unset RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO_BUILD_RUSTC_WRAPPER
# rust-toolchain.toml says which compiler, unless rustup is told otherwise or there is none.
unset RUSTUP_TOOLCHAIN
pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
compiler=$(rustc --version)
[[ $compiler == "rustc $pinned "* ]] || die "this is $compiler, and rust-toolchain.toml says $pinned"
crates=$(realpath "${CARGO_HOME:-$HOME/.cargo}")
toolchain=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
[ -n "$host" ] || die "rustc does not say what it builds for"
work=$(realpath "$(mktemp -d)")
trap 'rm -rf "$work"' EXIT

# Builds all of the commit in a folder of this name, into its folder `dist`.
build() {
    local sources=$work/$1/sources output=$work/$1/output home=$work/$1/crates dist=$work/$1/dist
    mkdir -p "$sources" "$output" "$home" "$dist"
    git archive HEAD | tar -x --no-same-permissions -C "$sources"
    # The same crates and settings, in another place.
    local part
    for part in registry git config.toml config credentials.toml; do
        [ ! -e "$crates/$part" ] || ln -s "$crates/$part" "$home/$part"
    done
    # A character between the flags that no path has. Cargo names nothing after flags that only remap. Of several that fit
    # the last counts.
    local flags=(--remap-path-prefix="$toolchain=/toolchain" --remap-path-prefix="$crates=/crates" --remap-path-prefix="$home=/crates"
        --remap-path-prefix="$sources=/sources" --remap-path-prefix="$output=/output")
    (
        cd "$sources"
        CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}")
        export CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR=$output CARGO_HOME=$home
        export CFLAGS="-ffile-prefix-map=$crates=/crates -ffile-prefix-map=$home=/crates -ffile-prefix-map=$output=/output"
        "$cargo" build --release --locked --package toolzz-operator --bin toolzz-operator
        install -m 755 "$output/release/toolzz-operator" "$dist/toolzz-operator-$version-$host"
        # Of the clone, which can name the commit.
        "$clone/hack/image.sh" "$output/release/toolzz-operator" "$dist/toolzz-operator-$version-$host.oci.tar" \
            "$output/components.json"

        # Next to the manifest; with SOURCE_DATE_EPOCH it has the commit's time and no serial number. The ids of the
        # workspace's own crates are their places. It knows of crates only: what else is in the image is added.
        "$cargo" cyclonedx --quiet --format json --spec-version 1.5 --target "$host" --override-filename sbom
        sed "s#$sources#/sources#g" sbom.json | jq --slurpfile more "$output/components.json" '.components += $more[0]' \
            > "$dist/toolzz-operator-$version-$host.cdx.json"

        "$helm" package --destination "$dist" charts/toolzz-operator
    ) >&2
}

build one
build another/deeper/place
one=$work/one/dist
diff -rq "$one" "$work/another/deeper/place/dist" || die "two builds of one commit differ"
jq --exit-status '.bomFormat == "CycloneDX" and ([.components[].properties[]?.value | select(test("/libc.so|ca-certificates"))]
    | length == 2)' "$one"/*.cdx.json > /dev/null || die "no SBOM, or one without what is in the image"
{
    echo "commit: $(git rev-parse HEAD)"
    (. /etc/os-release && echo "machine: $PRETTY_NAME")
    rustc --version --verbose
    cc --version | sed -n 1p
    ld --version | sed -n 1p
    getconf GNU_LIBC_VERSION
    # Which linker it was, in its own words: rustc brings one.
    readelf --string-dump=.comment "$one/toolzz-operator-$version-$host" | sed -n 's/^ *\[ *[0-9a-f]*\] *//p'
} > "$one/BUILDINFO"
for place in "$work" "$crates" "$toolchain"; do
    for file in "$one"/*; do
        # 1: looked at, and not there.
        status=0
        grep -qaF -- "$place" "$file" || status=$?
        [ "$status" = 1 ] || die "$(basename "$file") names $place, or cannot be read"
    done
done

rm -rf dist
mkdir dist
cp "$one"/* dist
(cd dist && sha256sum -- * > "$work/SHA256SUMS")
install -m 644 "$work/SHA256SUMS" dist
cat dist/SHA256SUMS
