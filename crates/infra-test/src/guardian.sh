# Reads what there is to tidy away, line by line, and tidies it away at the end of its input: see guardian.rs.
#
#   orderly PID     SIGTERM, and SIGKILL when it has not ended after 10 s
#   tree PID        SIGKILL, to its descendants too
#   marked TEXT     SIGKILL to whatever has TEXT in its environment
#   mount FOLDER    unmounted
#   namespace NAME  a network namespace, deleted
#   bridge NAME MAC a bridge, deleted if it has this hardware address: else it is somebody else's
#   link NAME       a network interface, deleted
#   group FOLDER    a control group, removed, with those in it; the processes in them are killed
#   containers FOLDER  all containers of the podman whose configuration is there, killed and removed
#   folder FOLDER   removed, with all that is in it
#
# What could not be tidied away is said on stdout, and the exit code is 1.
set -u -f
exec 2>&1
trap '' HUP INT TERM PIPE
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C
cd /

newline='
'
orderly='' trees='' marks='' mounts='' namespaces='' bridges='' links='' groups='' containers='' folders='' status=0

left() { echo "$*" && status=1; }

# Sets `state` and `started` of process $1.
look() {
    { IFS= read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    # shellcheck disable=SC2086 # fields; the name before them may hold spaces
    set -- ${stat##*) }
    state=$1
    shift 19
    started=$1
}

# Whether the process $1 that started at $2 still runs. Its id may have been given away meanwhile.
runs() { look "$1" && [ "$started" = "$2" ] && [ "$state" != Z ]; }

# The descendants of $1, children first.
family() {
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        echo "$child"
        family "$child"
    done
}

# Waits until none of $1 ("PID STARTED" lines) runs, for $2 fiftieths of a second at most.
await() {
    rounds=$2
    while [ "$rounds" -gt 0 ]; do
        running=''
        while read -r pid start; do
            if [ -n "$pid" ] && runs "$pid" "$start"; then running=yes; fi
        done <<END
$1
END
        [ -n "$running" ] || return 0
        rounds=$((rounds - 1))
        sleep 0.02
    done
    return 1
}

# Sends signal $1 to those of $2 ("PID STARTED" lines) that still run.
send() {
    while read -r pid start; do
        if [ -n "$pid" ] && runs "$pid" "$start"; then kill -s "$1" "$pid" 2>/dev/null; fi
    done <<END
$2
END
}

# The processes with $1 in their environment.
marked() { (set +f && grep -lzF -e "$1" /proc/[0-9]*/environ 2>/dev/null) | cut -d/ -f3; }

while IFS= read -r line; do
    value=${line#* }
    case $line in
    'orderly '*) if look "$value"; then orderly="$orderly$value $started$newline"; fi ;;
    'tree '*) if look "$value"; then trees="$trees$value $started$newline"; fi ;;
    'marked '*) marks="$marks$value$newline" ;;
    'mount '*) mounts="$value$newline$mounts" ;;
    'namespace '*) namespaces="$namespaces$value$newline" ;;
    'bridge '*) bridges="$bridges$value$newline" ;;
    'link '*) links="$value$newline$links" ;;
    'group '*) groups="$groups$value$newline" ;;
    'containers '*) containers="$containers$value$newline" ;;
    'folder '*) folders="$folders$value$newline" ;;
    esac
done

send TERM "$orderly"
await "$orderly" 500 || {
    send KILL "$orderly"
    await "$orderly" 250 || left "a process did not end by SIGKILL, one of: $orderly"
}

set +f # for the folders of /proc
doomed=''
while read -r pid start; do
    if [ -n "$pid" ] && runs "$pid" "$start"; then
        kill -s STOP "$pid" # so that no child is born while they are counted
        for one in $pid $(family "$pid"); do
            if look "$one"; then doomed="$doomed$one $started$newline"; fi
        done
    fi
done <<END
$trees
END
set -f
send KILL "$doomed"
await "$doomed" 250 || left "a process did not end by SIGKILL, one of: $doomed"

IFS=$newline
for mark in $marks; do
    IFS=$newline' '
    rounds=250
    while found=$(marked "$mark") && [ -n "$found" ] && [ "$rounds" -gt 0 ]; do
        # shellcheck disable=SC2086 # a list of ids
        kill -s KILL $found 2>/dev/null
        rounds=$((rounds - 1))
        sleep 0.02
    done
    [ -z "$found" ] || left "processes with $mark in their environment live on: $found"
done

IFS=$newline
for group in $groups; do
    IFS=$newline' '
    rounds=250
    while [ -d "$group" ] && ! find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && [ "$rounds" -gt 0 ]; do
        # Killing systemd-nspawn does not kill its machine.
        for pid in $(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null); do
            if [ "$pid" -gt 1 ]; then kill -s KILL "$pid" 2>/dev/null; fi
        done
        rounds=$((rounds - 1))
        sleep 0.02
    done
    [ ! -d "$group" ] || left "control group not removed: $group"
done

IFS=$newline
for folder in $containers; do
    if [ -e "$folder/storage.conf" ]; then
        CONTAINERS_STORAGE_CONF=$folder/storage.conf CONTAINERS_CONF=$folder/containers.conf podman rm --force --all --time 0 >/dev/null ||
            left "containers not removed: those of $folder"
    fi
    while IFS=' ' read -r _ mount _; do
        case $mount in "$folder"/*) umount -l "$mount" || left "still mounted: $mount" ;; esac
    done </proc/self/mounts
done
for mount in $mounts; do
    rounds=50
    while mountpoint -q "$mount" && ! umount "$mount" 2>/dev/null && [ "$rounds" -gt 0 ]; do
        rounds=$((rounds - 1))
        sleep 0.02
    done
    if mountpoint -q "$mount"; then umount -l "$mount" || left "still mounted: $mount"; fi
done
for link in $links; do
    if [ -e "/sys/class/net/$link" ]; then ip link del "$link" || [ ! -e "/sys/class/net/$link" ] || left "link not deleted: $link"; fi
done
for namespace in $namespaces; do
    if [ -e "/run/netns/$namespace" ]; then ip netns del "$namespace" || left "network namespace not deleted: $namespace"; fi
done
while IFS=' ' read -r bridge hardware; do
    if [ -n "$bridge" ] && [ "$(cat "/sys/class/net/$bridge/address" 2>/dev/null)" = "$hardware" ]; then
        ip link del "$bridge" || left "bridge not deleted: $bridge"
    fi
done <<END
$bridges
END
for folder in $folders; do
    [ ! -e "$folder" ] || rm -rf --one-file-system "$folder" || left "folder not removed: $folder"
done
exit $status
