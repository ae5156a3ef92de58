#!/usr/bin/env bash
# Makes an OCI image of a binary, without a container engine, unpacks it again and tries it. Started by `make image` and
# `make release`. Usage: hack/image.sh BINARY ARCHIVE [COMPONENTS]
#
# In the image are the binary, the loader and the shared libraries that it names, root certificates, and which packages the
# libraries are of, for scanners: no shell, nothing else. The same binary, libraries and commit give the same bytes.
# COMPONENTS gets what an SBOM of the binary lacks: these libraries and certificates, as components of CycloneDX.
set -euo pipefail
shopt -s inherit_errexit
binary=$(realpath "${1:?the binary}")
archive=$(realpath -m "${2:?where to write}")
components=${3:+$(realpath -m "$3")}
umoci=${UMOCI:?set by make}
roots=${ROOT_CERTIFICATES:?set by make}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
die() { echo "$*" >&2; exit 1; }

umask 022
# The commit's time, also for umoci.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
created=$(date --date="@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
revision=$(git describe --always --dirty --abbrev=40 --exclude='*')
version=$("$binary" --version)
version=${version#* }
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
root=$work/root layout=$work/layout image=$work/layout:$version

mkdir -p "$root/etc/ssl/certs"
install "$binary" "$root/toolzz-operator"
# The package that a file is of, if dpkg has it. Where /lib is a link into /usr, some packages name one place and some the other.
package_of() {
    local name found
    for name in "$1" "/usr$1"; do
        found=$(dpkg-query --search "$name" 2> /dev/null) || continue
        echo "${found%%: *}"
        return
    done
}
distribution=$(. /etc/os-release && echo "$ID ${VERSION_ID:-}")
# Each at the place where the loader has found it: it looks there again. The kernel's own (vdso) has no place.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    install -D "$library" "$root$library"
    package=$(package_of "$library")
    if [ -z "$package" ]; then
        printf '%s\tunknown\n' "$library"
        continue
    fi
    stanza='Package: ${Package}\nStatus: install ok installed\nArchitecture: ${Architecture}\nVersion: ${Version}\n'
    stanza+='Source: ${source:Package} (${source:Version})\nMaintainer: ${Maintainer}\n'
    mkdir -p "$root/var/lib/dpkg/status.d"
    dpkg-query --show --showformat "$stanza" "$package" > "$root/var/lib/dpkg/status.d/${package%%:*}"
    dpkg-query --show --showformat "$library\t\${Version}\t\${Package}\t\${Architecture}\t\${source:Package}\n" "$package"
done > "$work/libraries"
# Scanners go by these to know whose packages they are.
for file in os-release debian_version lsb-release; do
    [ ! -d "$root/var/lib/dpkg" ] || [ ! -f "/etc/$file" ] || install -m 644 "/etc/$file" "$root/etc/$file"
done
"$roots" > "$root/etc/ssl/certs/ca-certificates.crt"

# All of it is root's: the operator's user can change nothing, even where the root file system may be written to.
tar --create --file "$work/layer.tar" --directory "$root" --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
    --owner=0 --group=0 --numeric-owner .

"$umoci" init --layout "$layout"
"$umoci" new --image "$image"
"$umoci" raw add-layer --image "$image" --history.created_by hack/image.sh "$work/layer.tar"
"$umoci" config --image "$image" --no-history \
    --config.user 65532:65532 --config.entrypoint /toolzz-operator --config.cmd run \
    --config.label org.opencontainers.image.title=toolzz-operator \
    --config.label "org.opencontainers.image.description=Keeps provider credentials in Toolzz in step with Kubernetes Secrets" \
    --config.label org.opencontainers.image.licenses=Apache-2.0 \
    --config.label "org.opencontainers.image.version=$version" \
    --config.label "org.opencontainers.image.revision=$revision" \
    --config.label "org.opencontainers.image.created=$created"
# What was there before the last step.
"$umoci" gc --layout "$layout" > "$work/gc"

# Is it one that runs? From here on only what was made counts.
unpacked=$work/unpacked
"$umoci" raw unpack --rootless --image "$image" "$unpacked"
enter=(chroot)
[ "$(id -u)" = 0 ] || enter=(unshare --map-root-user chroot)
in_image() { env -i PATH="$PATH" "${enter[@]}" "$unpacked" /toolzz-operator "$@"; }
[ "$(in_image --version)" = "toolzz-operator $version" ] || die "the binary does not run in the image"
# Without certificates it ends before it looks for Kubernetes.
echo token > "$unpacked/token"
said=$(in_image run --api-token-file /token 2>&1) && die "it runs without Kubernetes"
rm "$unpacked/token"
grep -q "no access to Kubernetes" <<< "$said" || die "in the image it says: $said"
others=$(cd "$unpacked" && find . ! -type d ! -path ./toolzz-operator ! -path ./etc/ssl/certs/ca-certificates.crt ! -name '*.so*' \
    ! -path './var/lib/dpkg/status.d/*' ! -path ./etc/os-release ! -path ./etc/debian_version ! -path ./etc/lsb-release)
[ -z "$others" ] || die "what is that in the image? $others"

# A library that no package has is named by its file, with the version "unknown".
[ -z "$components" ] || jq --raw-input --slurp --arg distribution "$distribution" \
    --arg roots "$(sed -n 's#.* golang.org/x/crypto/x509roots/fallback \(v[^ ]*\).*#\1#p' tests/controlplane/tools/image/go.mod)" '
    ($distribution | split(" ")) as [$id, $release] |
    [split("\n")[] | select(. != "") | split("\t") as [$file, $version, $package, $architecture, $source] |
        {type: "library", name: ($package // ($file | split("/") | last)), version: $version}
        + if $package then {purl: "pkg:deb/\($id)/\($package)@\($version | @uri)?arch=\($architecture)&distro=\($id)-\($release)&upstream=\($source)"} else {} end
        + {properties: [{name: "toolzz-operator:file", value: $file}]}]
    # A package of several files is one component.
    | group_by([.name, .version]) | map(.[0] + {properties: map(.properties[])} + {"bom-ref": (.[0].purl // "library:\(.[0].name)")})
    + ["golang.org/x/crypto/x509roots/fallback" as $name | "pkg:golang/\($name)@\($roots)" as $purl |
        {type: "library", name: $name, version: $roots, purl: $purl, "bom-ref": $purl,
            properties: [{name: "toolzz-operator:file", value: "/etc/ssl/certs/ca-certificates.crt"}]}]
' "$work/libraries" > "$components"

mkdir -p "$(dirname "$archive")"
tar --create --file "$archive" --directory "$layout" --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
    --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX .
size() { numfmt --to=si --suffix=B "$1"; }
echo "$archive: $(size "$(stat --format=%s "$archive")"), unpacked $(size "$(du --bytes --summarize "$unpacked" | cut -f1)")," \
    "of it the binary $(size "$(stat --format=%s "$binary")")"
