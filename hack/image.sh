#!/usr/bin/env bash
# Makes an OCI image of a binary, without a container engine, unpacks it again and tries it. Started by `make image` and
# `make release`. Usage: hack/image.sh BINARY ARCHIVE
#
# In the image are the binary, the loader and the shared libraries that it names, and root certificates: no shell, nothing
# else. The same binary, libraries and commit give the same bytes.
set -euo pipefail
shopt -s inherit_errexit
binary=$(realpath "${1:?the binary}")
archive=$(realpath -m "${2:?where to write}")
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
# Each at the place where the loader has found it: it looks there again. The kernel's own (vdso) has no place.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    install -D "$library" "$root$library"
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
others=$(cd "$unpacked" && find . ! -type d ! -path ./toolzz-operator ! -path ./etc/ssl/certs/ca-certificates.crt ! -name '*.so*')
[ -z "$others" ] || die "what is that in the image? $others"

mkdir -p "$(dirname "$archive")"
tar --create --file "$archive" --directory "$layout" --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
    --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX .
size() { numfmt --to=si --suffix=B "$1"; }
echo "$archive: $(size "$(stat --format=%s "$archive")"), unpacked $(size "$(du --bytes --summarize "$unpacked" | cut -f1)")," \
    "of it the binary $(size "$(stat --format=%s "$binary")")"
