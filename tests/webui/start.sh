#!/usr/bin/env bash
# As the start command of upstream's image does it: HOST and PORT say where it listens.
cd -- "$(dirname -- "${BASH_SOURCE[0]}")" || exit
exec python3 -m uvicorn open_webui.main:app --host "${HOST:-0.0.0.0}" --port "${PORT:-8080}" --forwarded-allow-ips '*'
