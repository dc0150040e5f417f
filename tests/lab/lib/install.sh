# shellcheck shell=bash
# Packages that the lab needs on this machine itself. Never QEMU: its packages stay in the hosts' root file systems.

# command -> Debian package that brings it
declare -A NEEDED_COMMANDS=([debootstrap]=debootstrap [ip]=iproute2 [tc]=iproute2 [ssh]=openssh-client
  [ssh-keygen]=openssh-client [cpio]=cpio [setpriv]=util-linux [unshare]=util-linux [nsenter]=util-linux
  [flock]=util-linux [pivot_root]=mount [cc]=gcc [nft]=nftables [openssl]=openssl [virsh]=libvirt-clients)
OPTIONAL_COMMANDS=(virsh) # only the selftest uses it, to try qemu+ssh from the operator's namespace

install_missing() {
  local command
  for command in "${!NEEDED_COMMANDS[@]}"; do
    command -v "$command" >/dev/null || echo "${NEEDED_COMMANDS[$command]}"
  done | sort -u
  # A static program needs the static C library.
  [[ -n $(find /usr/lib -maxdepth 2 -name libc.a -print -quit 2>/dev/null) ]] || echo libc6-dev
  [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || echo debian-archive-keyring
}

install_machine() {
  need_root
  local packages
  packages=$(install_missing | tr '\n' ' ')
  if [[ -n ${packages// /} ]]; then
    say "installing $packages"
    # shellcheck disable=SC2086 # a list of packages
    "$LAB_DIR/../install" $packages ||
      die "apt-get could not install $packages; try it by hand to see why"
  fi
  require_tools
}

require_tools() {
  local command missing=()
  for command in "${!NEEDED_COMMANDS[@]}"; do
    [[ " ${OPTIONAL_COMMANDS[*]} " == *" $command "* ]] && continue
    command -v "$command" >/dev/null || missing+=("$command")
  done
  ((${#missing[@]} == 0)) || die "this machine has no ${missing[*]}; run: $LAB_DIR/lab install"
  command -v rustc >/dev/null || die "there is no rustc in PATH; it compiles the guests' workloads (https://rustup.rs)"
  grep -qw overlay /proc/filesystems || die "this kernel has no overlay file system; the hosts' root file systems need it"
}
