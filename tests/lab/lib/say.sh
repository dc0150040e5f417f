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
  if ! flock -n 9; then
    say "another lab command is at work; waiting for it ($LAB_STATE.lock)"
    flock -w 900 9 || die "waited 15 minutes for $LAB_STATE.lock; see who holds it: fuser -v $LAB_STATE.lock"
  fi
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
