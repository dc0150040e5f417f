# shellcheck shell=bash
# Messages, and the lock that keeps two `up` or `down` apart.

say() { echo "lab: $*" >&2; }

die() {
  echo "lab: error: $*" >&2
  exit 1
}

need_root() {
  [[ $EUID -eq 0 ]] || die "namespaces and mounts need root; run: sudo -E $LAB_DIR/lab ..."
}

# The lock is descriptor 9. Build steps inherit it, so that a killed `up` holds it until its last
# build step is gone; whatever outlives `up` must be started with 9>&-.
lock_lab() {
  mkdir -p "$(dirname "$LAB_STATE")"
  exec 9>"$LAB_STATE.lock"
  wait_for_lock 9 "$LAB_STATE.lock"
}

# wait_for_lock DESCRIPTOR FILE
wait_for_lock() {
  flock -n "$1" && return
  say "another lab command is at work; waiting for it ($2)"
  flock -w 900 "$1" || die "waited 15 minutes for $2; see who holds it: fuser -v $2"
}

# wait_until SECONDS CMD...: polls CMD ten times a second.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}
