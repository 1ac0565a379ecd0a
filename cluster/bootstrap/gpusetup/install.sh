# Installs the packages of the NVIDIA container toolkit at one version from NVIDIA's repository, checked by its own key.
set -eu
umask 022
export DEBIAN_FRONTEND=noninteractive
keyring=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg
list=/etc/apt/sources.list.d/nvidia-container-toolkit.list
new=$(mktemp -d)
mkdir "$new/was"
[ ! -e "$ROOT$list" ] || cp -p "$ROOT$list" "$new/was/list"
finish() {
	code=$?
	if [ $code != 0 ]; then # a source that does not work would break every later update of the system
		if [ -e "$new/was/list" ]; then cp -p "$new/was/list" "$ROOT$list"; else rm -f "$ROOT$list"; fi
	fi
	rm -rf "$new"
	exit $code
}
trap finish EXIT
# The lock of the lists, unlike dpkg's, has no limit of its own to wait for.
update() {
	end=$(($(date +%s) + WAIT))
	until apt-get -o DPkg::Lock::Timeout="$WAIT" update >"$new/said" 2>&1; do
		grep -q 'Could not get lock' "$new/said" && [ "$(date +%s)" -lt "$end" ] || { cat "$new/said" >&2; return 1; }
		sleep 3
	done
}
install() { apt-get -o DPkg::Lock::Timeout="$WAIT" install -y --no-install-recommends "$@"; }

if ! command -v curl >/dev/null || ! command -v gpg >/dev/null; then
	update
	install ca-certificates curl gnupg
fi
curl -fsSL --retry 3 -m 60 -o "$new/key" "$SITE/gpgkey"
gpg --batch --yes --dearmor -o "$new/keyring" "$new/key"
mkdir -p "$ROOT/usr/share/keyrings" "$ROOT/etc/apt/sources.list.d"
cp "$new/keyring" "$ROOT$keyring"
chmod 644 "$ROOT$keyring"
echo "deb [signed-by=$keyring] $SITE/stable/deb/\$(ARCH) /" >"$new/list"
cp "$new/list" "$ROOT$list"
update
pinned=
for p in $PACKAGES; do pinned="$pinned $p=$VERSION"; done
apt-get -s install --no-install-recommends --allow-downgrades $pinned | grep -E '^(Inst|Remv)' || :
install --allow-downgrades $pinned
