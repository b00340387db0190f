#!/usr/bin/env bash
# From a folder of books to story_dataset_{train,val,test}.jsonl: read, write with a model, compile.
#
#   MODEL=Qwen/Qwen2.5-7B-Instruct setup_data/build_dataset.sh BOOKS_DIR [FLAGS]
#   SERVER_URL=http://127.0.0.1:8000/v1 setup_data/build_dataset.sh BOOKS_DIR [FLAGS]
#
# FLAGS go to setup_data.write_annotations (--concurrency 64, --stories ..., --max_characters ...).
# Without SERVER_URL it starts `vllm serve "$MODEL"` on a free loopback port, its output in $OUT_DIR/vllm.log, and stops
# it at the end. Interrupted, it is continued by the same command; only what is missing is asked for.
#
# Settings, from the environment:
#   OUT_DIR       where all of it goes (book_dataset)
#   MODEL         model of the server that is started: a folder or a hub id
#   SERVER_URL    root of a running server's API; OPENAI_API_KEY is its key
#   VLLM_ARGS     more arguments for vllm serve, e.g. "--tensor-parallel-size 2 --max-model-len 32768"
#   READ_ARGS     more arguments for setup_data.read_books, e.g. "--max_chapters 4"
#   COMPILE_ARGS  more arguments for setup_data.compile_dataset, e.g. "--format messages --num_last_chapters 2"
#   START_LIMIT_S how long the server may take to start (1800)
#   PYTHON        the interpreter (.venv/bin/python if there is one, else python3)
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
fi
BOOKS_DIR=$(realpath -- "$1")
shift
OUT_DIR=$(realpath -m -- "${OUT_DIR:-book_dataset}")
MODEL=${MODEL:-}
if [[ -d $MODEL ]]; then
    MODEL=$(realpath -- "$MODEL")
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python3
    [[ -x .venv/bin/python ]] && PYTHON=.venv/bin/python
fi
# What this script starts ends with it, also when it is killed.
RUN=("$PYTHON")
command -v setpriv >/dev/null && RUN=(setpriv --pdeathsig TERM "$PYTHON")
SERVER_URL=${SERVER_URL:-}
SERVER_LOG=$OUT_DIR/vllm.log
SERVER_PID=

# shellcheck disable=SC2329  # the trap calls it
stop_server() {
    [[ -n $SERVER_PID ]] || return 0
    kill -TERM "$SERVER_PID" 2>/dev/null || true
    for _ in {1..100}; do
        kill -0 "$SERVER_PID" 2>/dev/null || break
        sleep 0.2
    done
    kill -KILL "$SERVER_PID" 2>/dev/null || true
    wait "$SERVER_PID" 2>/dev/null || true
}
trap stop_server EXIT
trap 'exit 130' INT TERM

fail_with_log() {
    echo "build_dataset.sh: $1; the end of $SERVER_LOG:" >&2
    tail -n 20 "$SERVER_LOG" >&2
    exit 1
}

start_server() {
    if [[ -z $MODEL ]]; then
        echo "build_dataset.sh: set MODEL (a folder or a hub id), or SERVER_URL to a server that runs" >&2
        exit 2
    fi
    local port
    port=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    echo "starting vllm serve $MODEL on port $port (log: $SERVER_LOG)"
    # shellcheck disable=SC2086  # VLLM_ARGS is a list of words
    "${RUN[@]}" -m setup_data.vllm_cli serve "$MODEL" --served-model-name "$(basename -- "$MODEL")" \
        --host 127.0.0.1 --port "$port" ${VLLM_ARGS:-} >"$SERVER_LOG" 2>&1 &
    SERVER_PID=$!
    SERVER_URL=http://127.0.0.1:$port/v1
    local health="import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health', timeout=5)"
    local deadline=$((SECONDS + ${START_LIMIT_S:-1800}))
    until "$PYTHON" -c "$health" 2>/dev/null; do
        kill -0 "$SERVER_PID" 2>/dev/null || fail_with_log "vllm serve ended before it was ready"
        ((SECONDS < deadline)) || fail_with_log "vllm serve was not ready after ${START_LIMIT_S:-1800} s"
        sleep 1
    done
    echo "the server is ready after $SECONDS s"
}

mkdir -p "$OUT_DIR"
unread=0
# shellcheck disable=SC2086  # lists of words, here and below
"${RUN[@]}" -m setup_data.read_books "$BOOKS_DIR" --output_dir "$OUT_DIR" ${READ_ARGS:-} || unread=$?
# 2: files that could not be read were named and passed over; the others go on, and the exit code says so at the end.
if ((unread != 0)) && { ((unread != 2)) || ! compgen -G "$OUT_DIR/books/*.md" >/dev/null; }; then
    exit "$unread"
fi
[[ -n $SERVER_URL ]] || start_server
written=0
"${RUN[@]}" -m setup_data.write_annotations --work_dir "$OUT_DIR" --server_url "$SERVER_URL" "$@" || written=$?
if ((written != 0)); then
    [[ -z $SERVER_PID ]] || kill -0 "$SERVER_PID" 2>/dev/null || fail_with_log "vllm serve died"
    exit "$written"
fi
# shellcheck disable=SC2086
"${RUN[@]}" -m setup_data.compile_dataset --source_dir "$OUT_DIR" --output_dir "$OUT_DIR" ${COMPILE_ARGS:-}
echo "done after $SECONDS s. Next: python setup_rl_data.py --dataset_dir $OUT_DIR --tokenizer_name TOKENIZER"
exit "$unread"
