# Writes the CDI specification anew, and lets it be written after every update of the driver from now on.
set -eu
if systemctl cat nvidia-cdi-refresh.service >/dev/null 2>&1; then
	systemctl enable nvidia-cdi-refresh.path nvidia-cdi-refresh.service
	systemctl restart nvidia-cdi-refresh.path
	systemctl restart nvidia-cdi-refresh.service
else
	mkdir -p "$ROOT/var/run/cdi"
	nvidia-ctk cdi generate --output="$ROOT/var/run/cdi/nvidia.yaml"
fi
