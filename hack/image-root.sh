#!/bin/sh
# Collects in a folder what weft's image holds of its base: Node, the programs that the agent starts, what those load, and
# what scanners and licences ask for of each package. No shell, no package manager, nothing else. Run in the base (Debian):
#   sh image-root.sh FOLDER
set -eu
root=$1
package_list=$(mktemp)
programs='node nft conntrack iptables ip6tables iptables-legacy ip6tables-legacy'

# A file under its own path, its folder without links; what a link names comes in its place. Notes its package.
take() {
  folder=$(readlink -f "$(dirname "$1")")
  file=$folder/$(basename "$1")
  [ -e "$root$file" ] && return
  mkdir -p "$root$folder"
  cp -L -p "$file" "$root$file"
  # dpkg knows some files by the path before /usr was merged. Node is of no package where it was copied.
  { dpkg-query -S "$file" || dpkg-query -S "${file#/usr}"; } 2>/dev/null | sed -n '1s/[:,].*//p' >>"$package_list"
}

# What it is linked to, the loader too.
take_libraries() {
  ldd "$1" >"$root.ldd"
  if grep 'not found' "$root.ldd"; then
    echo "image-root: $1 lacks a library" >&2
    exit 1
  fi
  for library in $(sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p' "$root.ldd"); do
    take "$library"
  done
}

mkdir -p "$root"
# /lib and the like are links where /usr is merged, and the loader is named by such a path.
for folder in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$folder" ]; then
    target=$(readlink "/$folder")
    mkdir -p "$root/$target"
    ln -s "$target" "$root/$folder"
  fi
done

for program in $programs; do
  path=$(command -v "$program")
  real=$(readlink -f "$path")
  take "$real"
  take_libraries "$real"
  # Several names of one executable, which looks by which it was called.
  name=$(readlink -f "$(dirname "$path")")/$program
  [ -e "$root$name" ] || ln -s "$real" "$root$name"
done

# iptables loads these by name, also those of rules that others have made.
plugins=$(dirname "$(dpkg-query -L libxtables12 iptables | grep '/xtables/libxt_comment.so$')")
for plugin in "$plugins"/*.so; do take "$plugin"; done

# As images without a package manager tell scanners what they are made of.
mkdir -p "$root/var/lib/dpkg/status.d" "$root/etc"
sort -u "$package_list" | while read -r package; do
  dpkg-query -s "$package" >"$root/var/lib/dpkg/status.d/$package"
  mkdir -p "$root/usr/share/doc/$package"
  cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
done
cp -L /etc/os-release "$root/etc/os-release"
# Without it the C library asks DNS first, and /etc/hosts only where there is none.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo 'root:x:0:0:root:/:/nonexistent' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
rm -f "$root.ldd" "$package_list"
