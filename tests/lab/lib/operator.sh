# shellcheck shell=bash
# The operator, where vmgate runs in tests: a namespace without a hypervisor, with ssh to the hosts over management.
# `ip netns exec` lays the files of /etc/netns/NAME over /etc, so that nobody's ~/.ssh or /etc is touched.

state_create() {
  mkdir -p "$LAB_STATE"/{hosts,guests,ssh}
  chmod 700 "$LAB_STATE/ssh"
  : >"$LAB_STATE/.vmgate-lab"
  local key
  for key in "${ALL_HOSTS[@]}" client; do
    [[ -e $LAB_STATE/ssh/$key.pub ]] && continue
    rm -f "$LAB_STATE/ssh/$key"
    ssh-keygen -q -t ed25519 -N '' -C "vmgate-lab $key" -f "$LAB_STATE/ssh/$key"
  done
}

state_remove() {
  [[ -d $LAB_STATE ]] || return 0
  [[ -e $LAB_STATE/.vmgate-lab ]] || die "$LAB_STATE was not made by the lab; look into it and remove it by hand"
  rm -rf --one-file-system "$LAB_STATE"
}

operator_up() {
  local files
  files=/etc/netns/$(netns_of "$OPERATOR")
  mkdir -p "$files/ssh"
  names_file management_address >"$files/hosts"
  sed 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf >"$files/nsswitch.conf"
  operator_known_hosts >"$LAB_STATE/ssh/known_hosts"
  operator_ssh_config >"$files/ssh/ssh_config"
}

operator_down() {
  rm -rf "/etc/netns/$(netns_of "$OPERATOR")"
  rmdir /etc/netns 2>/dev/null || true
}

operator_known_hosts() {
  local host
  for host in "${ALL_HOSTS[@]}"; do
    echo "$(hostname_of "$host"),$(management_address "$host") $(cut -d' ' -f1,2 "$LAB_STATE/ssh/$host.pub")"
  done
}

operator_ssh_config() {
  cat <<TEXT
Host $(hostname_of behind)
    HostName $(management_address b)
    HostKeyAlias $(hostname_of b)
    ProxyJump $(hostname_of a)
Host $(hostname_of '*') $MANAGEMENT_NET.*
    User root
    IdentityFile "$LAB_STATE/ssh/client"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "$LAB_STATE/ssh/known_hosts"
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    UpdateHostKeys no
    BatchMode yes
    ControlMaster no
    ConnectTimeout 10
TEXT
}

operator_run() {
  need_root
  (($# > 0)) || die "usage: lab run CMD..."
  [[ -e /run/netns/$(netns_of "$OPERATOR") ]] || die "the lab is not up; run: lab up"
  exec ip netns exec "$(netns_of "$OPERATOR")" "$@"
}

operator_env() {
  local host
  for host in "${ALL_HOSTS[@]}"; do
    printf 'export VMGATE_LAB_URI_%s=qemu+ssh://root@%s/system\n' "${host^^}" "$(hostname_of "$host")"
    printf 'export VMGATE_LAB_MIGRATE_%s=%s\n' "${host^^}" "$(migration_address "$host")"
    # For tools that connect without ssh, from any namespace.
    printf 'export VMGATE_LAB_SOCKET_%s=%q\n' "${host^^}" "$(host_dir "$host")/run/libvirt/libvirt-sock"
  done
  printf 'export VMGATE_LAB_NETNS=%s\n' "$(netns_of "$OPERATOR")"
  printf 'export VMGATE_LAB_STATE=%q\n' "$LAB_STATE"
  printf 'export VMGATE_LAB=%q\n' "$LAB_DIR/lab"
}
