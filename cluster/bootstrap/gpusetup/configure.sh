# Registers the runtime "nvidia" with Docker: on a copy first, then in one step, with a way back.
set -eu
umask 022
conf=$ROOT/etc/docker/daemon.json
mkdir -p "$ROOT/etc/docker"
copy=$(mktemp "$conf.new.XXXXXX")
trap 'rm -f "$copy"' EXIT
running() { docker ps -q | wc -l; }
if [ "$HOW" = restart ] && [ "$FORCE" != 1 ] && [ "$(running)" -gt 0 ]; then
	echo "containers began to run on Docker in the meantime" >&2
	exit 4
fi
if [ -e "$conf" ]; then cp -p "$conf" "$copy"; else echo '{}' >"$copy"; chmod 644 "$copy"; fi
nvidia-ctk runtime configure --runtime=docker --config="$copy" >&2
if dockerd --help 2>/dev/null | grep -q -e --validate; then dockerd --validate --config-file="$copy" >&2; fi
backup=
if [ -e "$conf" ]; then
	diff -u "$conf" "$copy" || :
	if ! cmp -s "$conf" "$copy"; then
		backup=$conf.before-gpu-setup
		cp -p "$conf" "$backup"
	fi
else
	cat "$copy"
fi
if [ -e "$conf" ] && [ -z "$backup" ]; then :; else mv -f "$copy" "$conf"; changed=1; fi
works() { systemctl "$HOW" docker && registered; }
# A reload is answered before it is done.
registered() {
	tries=20
	until docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q '"nvidia"'; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep "$PAUSE"
	done
}
works && exit 0
[ -z "${changed:-}" ] || if [ -n "$backup" ]; then cp -p "$backup" "$conf"; else rm -f "$conf"; fi
systemctl reset-failed docker 2>/dev/null || :
if systemctl "$HOW" docker; then
	echo "Docker did not take its new configuration; the old one is back and Docker runs with it" >&2
	exit 5
fi
echo "Docker did not take its new configuration, and does not start with the old one either" >&2
exit 6
