#!/usr/bin/env bash
# Makes dist/ of the commit that is checked out: the binary, its SBOM, its image, the chart, and checksums. Started by `make release`.
#
# The binary is built twice, from two copies of the commit in two places, and must come out the same to the byte. What can
# differ between two builds is taken away: the time, and the places of sources, crates and output. What must be the same is pinned: rust-toolchain.toml, Cargo.lock. The linker and the C compiler (for ring)
# are the machine's.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."
helm=${HELM:?set by make}
cargo=${CARGO:-cargo}
die() { echo "$*" >&2; exit 1; }

[ -z "$(git status --porcelain)" ] || die "there are changes that are not committed: a release is of a commit"
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[ -z "${TAG:-}" ] || [ "$TAG" = "v$version" ] || die "the tag is $TAG, the version in Cargo.toml $version"
grep -qx "appVersion: \"$version\"" charts/toolzz-operator/Chart.yaml || die "the chart's appVersion is not $version"

SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC CARGO_INCREMENTAL=0
crates=${CARGO_HOME:-$HOME/.cargo}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Builds the commit in a folder of this name; says where the binary is.
build() {
    local sources=$work/$1/sources output=$work/$1/output
    mkdir -p "$sources" "$output"
    git archive HEAD | tar -x -C "$sources"
    # A character between the flags that no path has. Cargo names nothing after flags that only remap.
    local flags=(--remap-path-prefix="$crates=/crates" --remap-path-prefix="$sources=/sources" --remap-path-prefix="$output=/output")
    (
        cd "$sources"
        CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}")
        export CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR=$output
        export CFLAGS="-ffile-prefix-map=$crates=/crates -ffile-prefix-map=$output=/output"
        "$cargo" build --release --locked --package toolzz-operator --bin toolzz-operator >&2
    )
    echo "$output/release/toolzz-operator"
}

one=$(build one)
other=$(build another/deeper/place)
cmp "$one" "$other" || die "two builds of one commit differ"
for place in "$work" "$crates"; do
    ! grep -qaF "$place" "$one" || die "the binary names $place"
done

rm -rf dist
mkdir dist
host=$(rustc -vV | sed -n 's/^host: //p')
install -m 755 "$one" "dist/toolzz-operator-$version-$host"
hack/image.sh "$one" "dist/toolzz-operator-$version-$host.oci.tar"

# Next to the manifest; with SOURCE_DATE_EPOCH it has the commit's time and no serial number.
(cd "$work/one/sources" && "$cargo" cyclonedx --quiet --format json --spec-version 1.5 --target "$host" --override-filename sbom)
sbom=$work/one/sources/sbom.json
grep -q '"bomFormat": "CycloneDX"' "$sbom" || die "no SBOM"
cp "$sbom" "dist/toolzz-operator-$version-$host.cdx.json"

"$helm" package --destination dist "$work/one/sources/charts/toolzz-operator"

(cd dist && sha256sum -- * > "$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
cat dist/SHA256SUMS
