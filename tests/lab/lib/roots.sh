# shellcheck shell=bash
# Root file systems of the hosts: a bare Debian of the suite, then the same with libvirt, QEMU and sshd.

root_recipe_base() { echo "$1"; declare -f root_fill_base; }
root_recipe_host() {
  root_recipe_base "$(base_suite "$1")"
  declare -f root_fill_host root_copy root_apt
  echo "${HOST_PACKAGES[@]}" "${SUITE_PACKAGES[$(base_suite "$1")]:-}"
  if is_backports "$1"; then
    declare -f root_add_backports
    echo "$1" "${BACKPORTED_SOURCES[@]}" "${BACKPORTED_PACKAGES[@]}"
  fi
}

is_backports() { [[ $1 == *-backports ]]; }
base_suite() { echo "${1%-backports}"; }

internal_build_base() { cache_build "$(base_path "$1")" root_fill_base "$1"; }

internal_build_root() { cache_build "$(root_path "$1")" root_fill_host "$1"; }

root_fill_base() {
  local suite=$1 root=$2 script=
  [[ -e /usr/share/debootstrap/scripts/$suite ]] || script=/usr/share/debootstrap/scripts/sid
  debootstrap --variant=minbase "$suite" "$root" "$(debian_mirror)" ${script:+"$script"}
  rm -rf "$root"/var/cache/apt/archives/*.deb
}

root_fill_host() {
  local suite=$1 root=$2 base packages
  base=$(base_suite "$suite")
  # shellcheck disable=SC2206 # a list of packages
  packages=("${HOST_PACKAGES[@]}" ${SUITE_PACKAGES[$base]:-})
  root_copy "$base" "$root"
  if is_backports "$suite"; then
    root_add_backports "$suite" "$root"
    packages+=("${BACKPORTED_PACKAGES[@]}")
  fi
  root_apt "$root" install "${packages[@]}"
  # bookworm's packages leave these out without a running system; trixie's make them.
  root_chroot "$root" sh -ec '
      getent group libvirt-qemu >/dev/null || groupadd --system libvirt-qemu
      getent passwd libvirt-qemu >/dev/null ||
        useradd --system --gid libvirt-qemu --home-dir /var/lib/libvirt --shell /usr/sbin/nologin libvirt-qemu
      rm -f /etc/ssh/ssh_host_* /etc/machine-id /etc/resolv.conf
      mkdir -p /lab /etc/libvirt/hooks'
  rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb
}

# Newer packages of a few sources, and of nothing else.
root_add_backports() {
  local suite=$1 root=$2
  echo "deb $(debian_mirror) $suite main" >"$root/etc/apt/sources.list.d/backports.list"
  printf 'Package: %s\nPin: release n=%s\nPin-Priority: 600\n' "$(printf 'src:%s ' "${BACKPORTED_SOURCES[@]}")" "$suite" \
    >"$root/etc/apt/preferences.d/backports"
}

# root_copy SUITE ROOT: a base to add packages to.
root_copy() {
  cp -a "$(base_path "$1")" "$2"
  cp -L /etc/resolv.conf "$2/etc/resolv.conf"
  apt-config dump Acquire >"$2/etc/apt/apt.conf.d/90vmgate-lab"
  printf '#!/bin/sh\nexit 101\n' >"$2/usr/sbin/policy-rc.d"
  chmod +x "$2/usr/sbin/policy-rc.d"
  mount -t proc proc "$2/proc"
}

root_chroot() {
  local root=$1
  shift
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive \
    ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
    chroot "$root" "$@"
}

root_apt() {
  local root=$1
  shift
  root_chroot "$root" apt-get -qq update
  root_chroot "$root" apt-get -qq -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io "$@"
}

# The mirror this machine itself installs Debian from.
debian_mirror() {
  if [[ -n ${VMGATE_LAB_MIRROR:-} ]]; then
    echo "$VMGATE_LAB_MIRROR"
    return
  fi
  local mirror
  mirror=$(apt-get indextargets --format '$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)' 2>/dev/null |
    awk '$1 == "Packages" && $2 == "main" && $3 ~ /^(bookworm|trixie|forky|sid|stable|oldstable|testing|unstable)$/ {print $4; exit}')
  [[ -n $mirror ]] ||
    die "this machine's apt names no Debian mirror; set VMGATE_LAB_MIRROR to the URL of one (the folder that holds dists/)"
  echo "$mirror"
}
