# shellcheck shell=bash
# The larger guest: a Debian with the real software whose failure detectors vmgate reads. Its root file system is a
# disk image that all such guests share read-only; what one writes stays in its memory. Built when it is first wanted.

SOFTWARE_PACKAGES=(busybox-static qemu-guest-agent iproute2 procps kmod hostname
  corosync pacemaker pacemaker-cli-utils pacemaker-resource-agents etcd-server etcd-client redis-server redis-sentinel
  keepalived mariadb-server galera-4 rabbitmq-server postgresql-15 patroni python3-etcd python3-dnspython chrony
  redis-tools rsync sqlite3 stress-ng tcc libc6-dev)
SOFTWARE_MODULES=(ext4 overlay)
SOFTWARE_DISK_MIB=2560 # sparse

software_parts_path() { echo "$LAB_CACHE/software-parts-$(software_recipe_parts | hash_of)"; }
software_path() { echo "$LAB_CACHE/guest-software-$(software_recipe | hash_of)"; }

software_recipe_parts() {
  root_recipe_base "$OLDEST_SUITE"
  declare -f root_copy root_apt software_fill_parts image_take_kernel image_take_modules
  echo "$GUEST_KERNEL" "$SOFTWARE_DISK_MIB" "${SOFTWARE_PACKAGES[@]}" "${GUEST_MODULES[@]}" "${SOFTWARE_MODULES[@]}"
}

software_recipe() {
  software_recipe_parts
  declare -f software_fill software_scripts
  cat "$LAB_DIR"/guest/* "$LAB_DIR"/guest-software/*
}

internal_build_software_parts() { cache_build "$(software_parts_path)" software_fill_parts; }
internal_build_software() { cache_build "$(software_path)" software_fill; }

image_command() {
  need_root
  [[ ${1:-} == software ]] || die "usage: lab image software; the small image is built by lab up"
  require_tools
  [[ -d $(software_path) ]] && return
  [[ -d $(base_path "$OLDEST_SUITE") ]] || die "there is no base to build on; run: lab up"
  cache_locked software_build
}

software_build() {
  [[ -d $(software_parts_path) ]] || "${CONTAINED[@]}" "$LAB_DIR/lab" internal build_software_parts
  [[ -d $(software_path) ]] || "${CONTAINED[@]}" "$LAB_DIR/lab" internal build_software
}

# Parts from Debian: the disk, the kernel and its modules.
software_fill_parts() {
  local parts=$1 work=$1/work
  local GUEST_MODULES=("${GUEST_MODULES[@]}" "${SOFTWARE_MODULES[@]}")
  mkdir -p "$parts/tree/bin"
  root_copy "$OLDEST_SUITE" "$work"
  # Written before the packages, so that the first data directory is small: a guest copies what it writes into memory.
  mkdir -p "$work/etc/mysql/mariadb.conf.d"
  printf '[mysqld]\n%s\n' 'innodb_log_file_size=4M
innodb_buffer_pool_size=24M
innodb_data_file_path=ibdata1:3M:autoextend
performance_schema=OFF' >"$work/etc/mysql/mariadb.conf.d/90-lab.cnf"
  mkdir -p "$work/etc/postgresql-common"
  echo 'create_main_cluster = false' >"$work/etc/postgresql-common/createcluster.conf"
  root_apt "$work" install "${SOFTWARE_PACKAGES[@]}"
  image_take_kernel "$work" "$parts" "$parts/tree"
  cp "$work/bin/busybox" "$parts/tree/bin/busybox"
  umount "$work/proc"
  rm -rf "$work"/tmp/* "$work"/var/cache/apt "$work"/var/lib/apt/lists "$work"/usr/share/{doc,man,locale} \
    "$work"/etc/resolv.conf "$work"/etc/machine-id
  mkdir -p "$work"/var/cache/apt
  cp -a "$parts/tree/lib/modules" "$work/usr/lib/"
  mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$work" "$parts/disk.img" "${SOFTWARE_DISK_MIB}M"
  rm -rf --one-file-system "$work"
}

# software_scripts ROOT: what starts and stops the software.
software_scripts() {
  install -D -m 755 "$LAB_DIR/guest-software/software" "$1/etc/software"
  install -D -m 755 "$LAB_DIR/guest-software/systemctl" "$1/usr/local/bin/systemctl"
}

# Our own part: an initramfs that mounts the disk and puts our scripts over it.
software_fill() {
  local image=$1 tree=$1/tree parts
  parts=$(software_parts_path)
  mkdir -p "$tree"/{proc,sys,dev,disk,memory,root,payload/etc,payload/usr/bin}
  cp -a "$parts/tree/." "$tree/"
  ln "$parts/disk.img" "$image/disk.img"
  cp "$parts/vmlinuz" "$image/vmlinuz"
  install -m 755 "$LAB_DIR/guest-software/init" "$tree/init"
  cp "$LAB_DIR/guest/inittab" "$tree/payload/etc/inittab"
  install -m 755 "$LAB_DIR/guest/rc" "$tree/payload/etc/rc"
  software_scripts "$tree/payload"
  rustc --edition 2021 -O -C target-feature=+crt-static -C strip=symbols -C panic=abort \
    -o "$tree/payload/usr/bin/workload" "$LAB_DIR/guest/workload.rs"
  (cd "$tree" && find . -print0 | cpio --quiet --null -o -H newc -R 0:0) | gzip -6 >"$image/initramfs"
  rm -rf "$tree"
}
