# shellcheck shell=bash
# Root file system of all three hosts, and the layer over it with the filled control plane. Both are cached.

nova_root_path() { echo "$LAB_CACHE/nova-root-$(nova_root_recipe | hash_of)"; }
control_path() { echo "$LAB_CACHE/nova-control-$(control_recipe | hash_of)"; }

# In place of the lab's: what a host's overlay lies on.
root_path() {
  case $1 in
    nova) nova_root_path ;;
    control) echo "$(control_path):$(nova_root_path)" ;;
  esac
}

nova_root_recipe() {
  root_recipe_host bookworm
  declare -f nova_root_fill
}

control_recipe() {
  nova_root_recipe
  image_recipe
  declare -f control_fill control_configure compute_configure
  cat "$NOVA_DIR"/etc/*
}

nova_cache_complete() {
  cache_sweep
  cache_build_each base bookworm
  [[ -d $(parts_path) ]] || "${CONTAINED[@]}" "$LAB_PROGRAM" internal build_parts
  [[ -d $(image_path) ]] || "${CONTAINED[@]}" "$LAB_PROGRAM" internal build_image
  [[ -d $(nova_root_path) ]] || "${CONTAINED[@]}" "$LAB_PROGRAM" internal build_nova_root
}

internal_build_nova_root() { cache_build "$(nova_root_path)" nova_root_fill; }

nova_root_fill() {
  local root=$1
  root_fill_host bookworm "$root"
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  # The program alone, without the system services that its package depends on. Not `dpkg -x`: it would put a folder in
  # the place of the link /lib, and nothing would run any more.
  root_chroot "$root" sh -ec '
    cd /tmp
    apt-get -qq download nova-compute
    dpkg-deb --fsys-tarfile nova-compute_*.deb | tar -xC / ./usr/bin ./etc/nova
    rm nova-compute_*.deb /etc/resolv.conf
    rm -rf /usr/share/doc /usr/share/man /usr/share/locale
    sed -i "s/^processes *=.*/processes = 1/; s/^threads *=.*/threads = 4/; /^plugins/s/,apparmor//; /^apparmor-profile/d; /^logto/d" \
      /etc/keystone/keystone-uwsgi.ini /etc/placement/placement-api-uwsgi.ini'
}
