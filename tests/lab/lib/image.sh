# shellcheck shell=bash
# Boot image of a guest: Debian's cloud kernel, and an initramfs of busybox, qemu-ga, our init and our workloads.
# The parts from Debian packages and the initramfs are cached apart, so that a change of init costs a second.

# Modules init asks for; what they depend on comes along.
GUEST_MODULES=(virtio_pci virtio_net virtio_console virtio_balloon virtio_rng virtio_blk
  inet_diag tcp_diag udp_diag unix_diag af_packet_diag nf_conntrack sctp uio_pci_generic)

image_recipe_parts() {
  root_recipe_base "$OLDEST_SUITE"
  declare -f root_copy root_apt image_fill_parts image_take_kernel image_take_modules image_take_binary
  echo "$GUEST_KERNEL" "${GUEST_PACKAGES[@]}" "${GUEST_MODULES[@]}"
}

image_recipe() {
  image_recipe_parts
  declare -f image_fill
  cat "$LAB_DIR"/guest/*
}

internal_build_parts() { cache_build "$(parts_path)" image_fill_parts; }
internal_build_image() { cache_build "$(image_path)" image_fill; }

image_fill_parts() {
  local parts=$1 work file
  work=$parts/work
  mkdir -p "$parts"/tree/{bin,sbin,usr/bin,usr/sbin,etc,lib,lib64,proc,sys,dev,run,tmp,root,var/log,var/run,mnt}
  root_copy "$OLDEST_SUITE" "$work"
  root_apt "$work" install "${GUEST_PACKAGES[@]}"
  image_take_kernel "$work" "$parts" "$parts/tree"

  cp "$work/bin/busybox" "$parts/tree/bin/busybox"
  root_chroot "$work" busybox --list-full >"$parts/applets"
  while read -r file; do
    mkdir -p "$parts/tree/$(dirname "$file")"
    [[ -e $parts/tree/$file ]] || ln -s /bin/busybox "$parts/tree/$file"
  done <"$parts/applets"
  image_take_binary "$work" /usr/sbin/qemu-ga "$parts/tree"
  cp -L "$work/etc/os-release" "$parts/tree/etc/os-release"
  umount "$work/proc"
  rm -rf --one-file-system "$work"
}

# image_take_kernel ROOT PARTS TREE: the kernel into PARTS, its modules into TREE.
image_take_kernel() {
  local work=$1 parts=$2 tree=$3 kernel version
  kernel=$(root_chroot "$work" apt-cache depends --important "$GUEST_KERNEL" | awk '$1 == "Depends:" {print $2; exit}')
  # Into a folder of its own: unpacked onto /, its lib/ would take the place of the link to usr/lib.
  root_chroot "$work" sh -ec "cd /tmp; apt-get -qq download '$kernel'; dpkg -x '$kernel'_*.deb /tmp/kernel"
  version=$(basename "$work"/tmp/kernel/lib/modules/*)
  root_chroot "$work" depmod -b /tmp/kernel "$version"
  image_take_modules "$work" "$version" "$tree"
  cp "$work/tmp/kernel/boot/vmlinuz-$version" "$parts/vmlinuz"
}

# image_take_modules ROOT VERSION TREE: the modules we ask for and what they depend on.
image_take_modules() {
  local root=$1 version=$2 tree=$3 folder=lib/modules/$2 module file
  for module in "${GUEST_MODULES[@]}"; do
    root_chroot "$root" modprobe -d /tmp/kernel --set-version "$version" --show-depends "$module"
  done | awk '$1 == "insmod" {sub("^/tmp/kernel/", "", $2); print $2}' | sort -u |
    while read -r file; do
      install -D -m 644 "$root/tmp/kernel/$file" "$root/tmp/taken/$file"
    done
  cp "$root/tmp/kernel/$folder"/modules.{order,builtin} "$root/tmp/taken/$folder/"
  root_chroot "$root" depmod -b /tmp/taken "$version"
  mkdir -p "$tree/lib"
  cp -r "$root/tmp/taken/lib/modules" "$tree/lib/modules"
}

# image_take_binary ROOT FILE TREE: the file and the libraries it names.
image_take_binary() {
  local root=$1 binary=$2 tree=$3 library
  install -D "$root$binary" "$tree$binary"
  root_chroot "$root" ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    install -D "$(readlink -f "$root$library" | sed "s|^/lib|$root/usr/lib|")" "$tree$library"
  done
}

image_fill() {
  local image=$1 tree
  tree=$image/tree
  mkdir -p "$image"
  cp -a "$(parts_path)/tree" "$tree"
  cp "$(parts_path)/vmlinuz" "$image/vmlinuz"
  local program
  for program in workload hostile-agent; do
    rustc --edition 2021 -O -C target-feature=+crt-static -C strip=symbols -C panic=abort \
      -o "$tree/bin/$program" "$LAB_DIR/guest/${program#hostile-}.rs"
  done
  install -m 755 "$LAB_DIR/guest/init" "$tree/init"
  cp "$LAB_DIR/guest/inittab" "$LAB_DIR/guest/passwd" "$LAB_DIR/guest/group" "$tree/etc/"
  install -m 755 "$LAB_DIR/guest/rc" "$tree/etc/rc"
  install -D -m 755 "$LAB_DIR/guest/service" "$tree/etc/init.d/lab-service"
  (cd "$tree" && find . -print0 | cpio --quiet --null -o -H newc -R 0:0) | gzip -6 >"$image/initramfs"
  rm -rf "$tree"
}
