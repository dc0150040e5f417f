# shellcheck shell=bash
# Cache of everything that takes long to build. A folder's name holds the hash of its recipe, and it gets
# that name only when it is complete; a folder called *.part was interrupted and is deleted.

hash_of() { sha256sum | cut -c1-12; }

base_path() { echo "$LAB_CACHE/base-$1-$(root_recipe_base "$1" | hash_of)"; }
root_path() { echo "$LAB_CACHE/root-$1-$(root_recipe_host "$1" | hash_of)"; }
parts_path() { echo "$LAB_CACHE/guest-parts-$(image_recipe_parts | hash_of)"; }
image_path() { echo "$LAB_CACHE/guest-$(image_recipe | hash_of)"; }

# Labs of different names share the cache, so building has a lock of its own: `cache_locked CMD...`.
# No subshell: it would outlive a killed `up`, and what it builds with it.
cache_locked() {
  mkdir -p "$LAB_CACHE"
  exec 8>"$LAB_CACHE.lock"
  wait_for_lock 8 "$LAB_CACHE.lock"
  "$@"
  exec 8>&-
}

cache_complete() {
  cache_sweep
  cache_build_all
}

# Only under the lock: then no other build is at work.
cache_sweep() {
  local part
  for part in "$LAB_CACHE"/*.part; do
    [[ -e $part ]] || continue
    rm -rf --one-file-system "$part" || die "cannot remove the interrupted build $part"
  done
}

# For the hosts that are to be started. A base is built once, before the roots that share it.
cache_build_all() {
  local host suites=() bases=("$OLDEST_SUITE")
  for host in "${HOSTS[@]}"; do
    suites+=("${HOST_SUITE[$host]}")
    bases+=("$(base_suite "${HOST_SUITE[$host]}")")
  done
  cache_build_each base "${bases[@]}"
  cache_build_each root "${suites[@]}"
  [[ -d $(parts_path) ]] || "${CONTAINED[@]}" "$LAB_PROGRAM" internal build_parts
  [[ -d $(image_path) ]] || "${CONTAINED[@]}" "$LAB_PROGRAM" internal build_image
}

# cache_build_each base|root SUITE...: one suite a process, for they spend half their time waiting for the network.
cache_build_each() {
  local what=$1 suite job failed=0 jobs=()
  shift
  for suite in $(printf '%s\n' "$@" | sort -u); do
    [[ -d $("${what}_path" "$suite") ]] && continue
    "${CONTAINED[@]}" "$LAB_PROGRAM" internal "build_$what" "$suite" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do
    wait "$job" || failed=1
  done
  ((failed == 0)) || die "a root file system could not be built; the log named above has the reason"
}

# A build step has its own mounts and processes, and dies with the `up` that wanted it. Not a function: in the
# background that would put a subshell between the two, which lives on.
CONTAINED=(setpriv --pdeathsig KILL -- unshare --mount --pid --fork --kill-child=KILL --mount-proc)

# cache_build TARGET CMD...: runs CMD with the folder to fill as last argument.
cache_build() {
  local target=$1 part=$1.part log
  shift
  log=$LAB_CACHE/$(basename "$target").log
  say "building $(basename "$target") (log: $log)"
  local begin=$SECONDS
  rm -rf --one-file-system "$part"
  # In the background, since `set -e` sleeps in whatever stands before an `if` or `||`.
  ("$@" "$part") >"$log" 2>&1 </dev/null &
  if ! wait $!; then
    tail -n 15 "$log" >&2
    die "building $target failed; the whole log is $log"
  fi
  sync -f "$part"
  mv "$part" "$target"
  say "built $(basename "$target") in $((SECONDS - begin)) s"
}
