# shellcheck shell=bash
# One line for each thing that can be up or not.

lab_status() {
  need_root
  local failed=0 name host
  local running=("${HOSTS[@]}")
  for host in "${FURTHER_HOSTS[@]}"; do
    if host_process "$host" >/dev/null; then running+=("$host"); fi
  done
  for name in "${running[@]}" "$OPERATOR"; do
    status_line "namespace $(netns_of "$name")" ip netns exec "$(netns_of "$name")" true || failed=1
  done
  for host in "${running[@]}"; do
    status_line "host $(hostname_of "$host") (${HOST_SUITE[$host]})" host_process "$host" || {
      failed=1
      continue
    }
    status_line "  sshd at $(management_address "$host")" host_daemon_runs "$host" sshd /run/sshd.pid || failed=1
    status_line "  libvirtd answers" host_exec "$host" virsh -q list || failed=1
    echo "  $(host_exec "$host" virsh version --daemon 2>/dev/null | awk -F: '/^Running/ {printf "%s;", $2}')"
    echo "  mig0: $(tc -n "$(netns_of "$host")" qdisc show dev mig0 2>/dev/null | head -n 1)"
  done
  if ((failed == 0)); then
    echo "guests:"
    guest_list | sed 's/^/  /'
  fi
  return "$failed"
}

# status_line WHAT CMD...
status_line() {
  local what=$1
  shift
  if ("$@") >/dev/null 2>&1; then
    echo "up    $what"
  else
    echo "DOWN  $what"
    return 1
  fi
}
