#!/usr/bin/env bash
# Builds all that a release has into dist/, and sends none of it anywhere: the file systems of the images, the chart, the client,
# what each program is made of (CycloneDX) and under which licences, and checksums. Run it as: make release-dry-run
set -euo pipefail
cd "$(dirname "$0")/.."
helm=$1 cyclonedx=$2
version=$(awk '$1 == "version:" {print $2}' charts/serval/Chart.yaml)
authorities=/etc/ssl/certs/ca-certificates.crt
[ -r "$authorities" ] || { echo "there are no public certificate authorities in $authorities: Debian package ca-certificates" >&2; exit 1; }
rm -rf dist
mkdir -p dist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() { # OS ARCH PROGRAM FILE, as the Dockerfile does
	CGO_ENABLED=0 GOOS=$1 GOARCH=$2 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.stamped=$version" -o "$4" "./cmd/$3"
}

bom() { # PROGRAM FILE
	"$cyclonedx" bin -json -noserial -std -version "$version" -output "$2" "$1" 2>"$work/bom" || { cat "$work/bom" >&2; exit 1; }
}

archive() { # FOLDER FILE: the same to the byte wherever and whenever it is made
	local same=(--sort=name --mtime=@0 --numeric-owner --mode=u=rwX,go=rX)
	tar -C "$1" "${same[@]}" --owner=0 --group=0 --exclude=./var/lib/serval -cf "$2" .
	if [ -d "$1/var/lib/serval" ]; then # whoever runs the image owns it
		tar -C "$1" "${same[@]}" --owner=65532 --group=65532 -rf "$2" ./var/lib/serval
	fi
}

go run ./release/licences >dist/LICENCES.txt
for arch in amd64 arm64; do
	for daemon in bridge worker; do
		name=serval-$daemon-$version-linux-$arch
		root=$work/$name
		mkdir -p "$root/etc/ssl/certs"
		cp "$authorities" "$root/etc/ssl/certs/"
		cp dist/LICENCES.txt "$root/"
		[ $daemon = worker ] || mkdir -p "$root/var/lib/serval"
		build linux $arch serval-$daemon "$root/serval-$daemon"
		bom "$root/serval-$daemon" "dist/$name.cdx.json"
		archive "$root" "dist/$name-rootfs.tar"
	done
done

if [ -d cmd/serval ]; then
	for target in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do
		os=${target%/*} arch=${target#*/} end=
		[ "$os" = windows ] && end=.exe
		name=serval-$version-$os-$arch
		build "$os" "$arch" serval "dist/$name$end"
		bom "dist/$name$end" "dist/$name.cdx.json"
	done
fi

"$helm" package charts/serval --destination dist >/dev/null
(cd dist && sha256sum -- * >SHA256SUMS)
cd dist
ls -l | awk 'NF > 2 {printf "%10.1f MB  %s\n", $5 / 1e6, $NF}'
