#!/bin/sh
# Collects what weft's image holds of its base: Node, nft, conntrack, iptables, what those load, and what scanners
# and licences ask for of each package. No shell, no package manager, nothing else. Run in the base (Debian):
#   sh image-root.sh FOLDER
# Node comes into FOLDER/node, all else into FOLDER/debian: layers of their own, since they change at different times.
set -eu
programs='nft conntrack iptables ip6tables iptables-legacy ip6tables-legacy'
root=$1/debian
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "image-root: $1" >&2
  exit 1
}

where() {
  command -v "$1" || fail "the base has no $1"
}

# A file under its own path, its folder without links; what a link names comes in its place.
take() {
  file=$(readlink -f "$(dirname "$1")")/$(basename "$1")
  [ ! -e "$root$file" ] || return 0
  mkdir -p "$root$(dirname "$file")"
  cp -L -p "$file" "$root$file"
  echo "$file" >>"$work/files"
}

# What these are linked to, the loader too.
take_libraries() {
  ldd "$@" >"$work/libraries" 2>&1 || fail "$1: $(cat "$work/libraries")"
  ! grep -q 'not found' "$work/libraries" || fail "$1${2+ or the like} lacks $(grep 'not found' "$work/libraries")"
  for library in $(sed -n 's/^.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]\{1,\}\(\/[^ ]*\) .*/\1/p' "$work/libraries" | sort -u); do
    take "$library"
  done
}

mkdir -p "$root/etc" "$root/var/lib/dpkg/status.d"
# /lib and the like are links where /usr is merged, and the loader is named by such a path.
for folder in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$folder" ]; then
    target=$(readlink "/$folder")
    mkdir -p "$root/$target"
    ln -s "$target" "$root/$folder"
  fi
done

# As it is published, it lies in a folder bin, and its licence beside that.
node=$(readlink -f "$(where node)")
take_libraries "$node"
for file in "$node" "${node%/bin/*}/LICENSE"; do
  mkdir -p "$1/node$(dirname "$file")"
  cp -p "$file" "$1/node$file"
done

for program in $programs; do
  path=$(where "$program")
  real=$(readlink -f "$path")
  take "$real"
  take_libraries "$real"
  # Several names of one executable, which looks by which it was called.
  name=$(readlink -f "$(dirname "$path")")/$program
  [ -e "$root$name" ] || ln -s "$real" "$root$name"
done

# iptables and nft load these by name, also those of rules that others have made.
plugins=$(dpkg-query -S '*/xtables/libxt_comment.so' | sed 's/^[^/]*//; s/\/[^/]*$//')
for plugin in "$plugins"/*.so; do take "$plugin"; done
take_libraries "$plugins"/*.so

take /usr/lib/os-release
ln -s ../usr/lib/os-release "$root/etc/os-release"
# dpkg knows some files by the path before /usr was merged.
sed 's/^\/usr//' "$work/files" | sort >"$work/unmerged"
cat "$work/files" "$work/unmerged" | xargs dpkg-query -S >"$work/owners" 2>/dev/null || true
sed 's/^.*: //; s/^\/usr//' "$work/owners" | sort -u | comm -13 - "$work/unmerged" >"$work/foreign"
[ ! -s "$work/foreign" ] || fail "of no package: $(cat "$work/foreign")"
# As images without a package manager tell scanners what they are made of.
sed '/^diversion/d; s/[:,].*//' "$work/owners" | sort -u | while read -r package; do
  dpkg-query -s "$package" >"$root/var/lib/dpkg/status.d/$package"
  mkdir -p "$root/usr/share/doc/$package"
  cp -L -p "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
done
# The licences that those name and do not repeat.
for licence in $(grep -ohr '/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]' "$root/usr/share/doc" | sort -u); do
  take "$licence"
done

# Without it the C library asks DNS first, and /etc/hosts only where there is none.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo 'root:x:0:0:root:/:/nonexistent' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
# The same packages give the same layers, whenever and wherever they are collected.
find "$1" -exec touch -h -d @0 {} +
