// Ticker: prices ten times a second, of which only the newest matters.
//
//   cc -O2 examples/ticker.c -o ticker && ./ticker [PORT]         then open http://127.0.0.1:8080/
//
// history = 1 keeps the last price of each symbol for whoever comes (since=-1), and RTPUSH_SLOW_LATEST lets a
// reader that cannot keep up skip to the newest: it is told of the gap, and costs nothing while it is behind.
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// One line an element: C99 promises room for 4,095 characters in one literal, and the page is longer.
static const char *const page[] = {
    "<!doctype html>",
    "<html lang='en'>",
    "<meta charset='utf-8'>",
    "<meta name='viewport' content='width=device-width, initial-scale=1, viewport-fit=cover'>",
    "<title>rtpush ticker</title>",
    "<link rel='icon' href='data:,'>",
    "<style>",
    ":root { color-scheme: light dark; --bg: #eef0f4; --panel: #fff; --ink: #1a2230; --soft: #566072; --line: #d7dce4;",
    "  --accent: #2f5fd8; --up: #0c7a3c; --down: #b3272d; --on: #16924a; --wait: #d98b06; }",
    "@media (prefers-color-scheme: dark) {",
    "  :root { --bg: #11151c; --panel: #1a202a; --ink: #e6ebf3; --soft: #9ca8ba; --line: #2d3644; --accent: #8fb0ff;",
    "    --up: #4fd18b; --down: #ff8a8a; --on: #3ccb78; --wait: #f0b03c; } }",
    "* { box-sizing: border-box; margin: 0; }",
    "body { background: var(--bg); color: var(--ink); max-width: 70rem; margin: 0 auto; padding: 1rem;",
    "  font: 16px/1.4 system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif; }",
    "header { display: flex; flex-wrap: wrap; gap: .6rem 1.5rem; align-items: center; margin-bottom: 1rem; }",
    "h1 { font-size: 1.25rem; letter-spacing: -.01em; flex: 1 0 auto; }",
    "h1 span { color: var(--accent); }",
    "fieldset { border: 1px solid var(--line); border-radius: .7rem; padding: .2rem; display: flex;",
    "  background: var(--panel); }",
    "legend { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }",
    "fieldset input { position: absolute; opacity: 0; pointer-events: none; }",
    "fieldset label { padding: .5rem .9rem; border-radius: .5rem; cursor: pointer; color: var(--soft); }",
    "fieldset input:checked + label { background: var(--bg); color: var(--accent); font-weight: 600; }",
    "fieldset input:focus-visible + label { outline: 3px solid var(--accent); }",
    "#state { display: flex; align-items: center; gap: .45rem; font-size: .9rem; }",
    "#state i { width: .75rem; height: .75rem; border-radius: 50%; background: var(--wait); }",
    "#state[data-state=on] i { background: var(--on); }",
    "#rate { font-size: .9rem; color: var(--soft); font-variant-numeric: tabular-nums; min-width: 9rem; }",
    "#cards { list-style: none; padding: 0; display: grid; gap: .75rem;",
    "  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }",
    "#cards li { background: var(--panel); border: 1px solid var(--line); border-radius: .9rem; padding: .8rem 1rem;",
    "  display: grid; grid-template-columns: 1fr auto; gap: .1rem .6rem; align-items: baseline; }",
    "#cards h2 { font-size: 1rem; }",
    "#cards b { font-size: 1.5rem; text-align: right; font-variant-numeric: tabular-nums; letter-spacing: -.02em; }",
    "#cards small { color: var(--soft); font-size: .85rem; }",
    "#cards em { font-style: normal; font-size: .95rem; text-align: right; font-variant-numeric: tabular-nums; }",
    "#cards svg { grid-column: 1 / -1; width: 100%; height: 3rem; display: block; }",
    "#cards polyline { fill: none; stroke: var(--soft); stroke-width: 1.6; vector-effect: non-scaling-stroke; }",
    ".up em { color: var(--up); }",
    ".down em { color: var(--down); }",
    "#cards .up polyline { stroke: var(--up); }",
    "#cards .down polyline { stroke: var(--down); }",
    "footer { margin-top: 1rem; font-size: .85rem; color: var(--soft); }",
    "@media (max-width: 40rem) {",
    "  h1 { flex-basis: 100%; }",
    "  #rate { min-width: 7.5rem; }",
    "  #cards { grid-template-columns: 1fr 1fr; }",
    "  #cards li { padding: .6rem .7rem; }",
    "  #cards b { font-size: 1.2rem; }",
    "  #cards small { display: none; }",
    "  #cards em { grid-column: 1 / -1; }",
    "  #cards svg { height: 2.2rem; }",
    "}",
    "</style>",
    "<body>",
    "<header>",
    "  <h1>rtpush <span>ticker</span></h1>",
    "  <p id='rate'></p>",
    "  <p id='state' role='status' data-state='wait'><i></i><span>connecting</span></p>",
    "  <fieldset>",
    "    <legend>Transport</legend>",
    "    <input type='radio' name='via' id='sse' value='sse' checked><label for='sse'>SSE</label>",
    "    <input type='radio' name='via' id='ws' value='ws'><label for='ws'>WebSocket</label>",
    "  </fieldset>",
    "</header>",
    "<main><ul id='cards' aria-label='Prices'></ul></main>",
    "<footer>Made-up prices, ten times a second. A reader that cannot keep up is told so and goes on from the newest:",
    "  <span id='gaps'>no gap so far</span>.</footer>",
    "<script>",
    "'use strict';",
    "const $ = id => document.getElementById(id);",
    "const svg = name => document.createElementNS('http://www.w3.org/2000/svg', name);",
    "const URL_ = '/live/price/*?since=-1';    // the last price of each symbol at once, then what comes",
    "const POINTS = 100;",
    "const cards = new Map(), dirty = new Set();",
    "let count = 0, gaps = 0, close = () => {};",
    "",
    "function card(symbol) {",
    "  const li = $('cards').appendChild(document.createElement('li'));",
    "  const c = { li: li, points: [], line: svg('polyline') };",
    "  const put = tag => li.appendChild(document.createElement(tag));",
    "  put('h2').textContent = symbol;",
    "  c.price = put('b');",
    "  put('small').textContent = 'since opening';",
    "  c.change = put('em');",
    "  const box = li.appendChild(svg('svg'));",
    "  box.setAttribute('viewBox', '0 0 ' + (POINTS - 1) + ' 40');",
    "  box.setAttribute('preserveAspectRatio', 'none');",
    "  box.setAttribute('aria-hidden', 'true');",
    "  box.append(c.line);",
    "  li.dataset.symbol = symbol;",
    "  return c;",
    "}",
    "",
    "function got(text) {",
    "  const d = JSON.parse(text);",
    "  if (!cards.has(d.s)) cards.set(d.s, card(d.s));",
    "  const c = cards.get(d.s);",
    "  c.points.push(d.p);",
    "  if (c.points.length > POINTS) c.points.shift();",
    "  if (!c.first) c.first = d.p;",
    "  dirty.add(c);",
    "  count++;",
    "}",
    "",
    "function draw(c) {",
    "  const now = c.points[c.points.length - 1], change = (now / c.first - 1) * 100;",
    "  const low = Math.min.apply(null, c.points), span = Math.max.apply(null, c.points) - low || 1;",
    "  const skip = POINTS - c.points.length;",
    "  c.price.textContent = now.toFixed(2);",
    "  c.change.textContent = (change > 0 ? '▲ +' : change < 0 ? '▼ ' : '') + change.toFixed(2) + ' %';",
    "  c.li.className = change > 0 ? 'up' : change < 0 ? 'down' : '';",
    "  c.line.setAttribute('points',",
    "    c.points.map((p, i) => skip + i + ',' + (38 - (p - low) / span * 36).toFixed(1)).join(' '));",
    "}",
    "function frame() {    // however much comes in, each card is drawn at most once a frame",
    "  dirty.forEach(draw);",
    "  dirty.clear();",
    "  requestAnimationFrame(frame);",
    "}",
    "",
    "function state(on) {",
    "  $('state').dataset.state = on ? 'on' : 'wait';",
    "  $('state').children[1].textContent = on ? 'connected' : 'reconnecting';",
    "}",
    "",
    "const via = {",
    "  sse() {   // the browser comes back by itself, with Last-Event-ID",
    "    const source = new EventSource(URL_);",
    "    source.onopen = () => state(true);",
    "    source.onerror = () => state(false);",
    "    source.onmessage = e => got(e.data);",
    "    source.addEventListener('gap', () => { $('gaps').textContent = 'gaps so far: ' + ++gaps; });",
    "    return () => source.close();",
    "  },",
    "  ws() {    // no subprotocol: a frame is a price, nothing around it",
    "    let socket, timer;",
    "    const open = () => {",
    "      socket = new WebSocket(location.origin.replace('http', 'ws') + URL_);",
    "      socket.onopen = () => state(true);",
    "      socket.onmessage = e => got(e.data);",
    "      socket.onclose = () => { state(false); timer = setTimeout(open, 500 + Math.random() * 2500); };",
    "    };",
    "    open();",
    "    return () => {",
    "      socket.onclose = socket.onmessage = socket.onopen = null;",
    "      clearTimeout(timer);",
    "      socket.close();",
    "    };",
    "  }",
    "};",
    "function start(name) {",
    "  close();",
    "  state(false);",
    "  close = via[name]();",
    "}",
    "",
    "setInterval(() => { $('rate').textContent = count + ' messages/s'; count = 0; }, 1000);",
    "document.querySelectorAll('[name=via]').forEach(r => { r.onchange = () => start(r.value); });",
    "start(document.querySelector('[name=via]:checked').value);",
    "frame();",
    "</script>",
};

static char html[16 * 1024]; // the lines above, joined when the program starts
static size_t html_size;
static rtpush_hub *hub; // for the signal handler

static struct {
    const char *symbol;
    double price;
} stocks[] = { { "ACME", 118.2 }, { "BOLT", 42.6 },  { "CRUX", 310.0 }, { "DUNE", 9.8 },
               { "ECHO", 77.7 },  { "FLUX", 154.1 }, { "GALE", 63.4 },  { "HALO", 225.9 } };

// -1 to 1, good enough for prices that nobody pays.
static double noise(void) {
    static uint32_t x = 2463534242u;
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    return (double)x / 2147483648.0 - 1;
}

static void tick(rtpush_hub *h, void *user) {
    for (size_t i = 0; i < sizeof stocks / sizeof *stocks; i++) {
        char topic[32], json[64];
        double next = stocks[i].price * (1 + noise() * 0.002);
        stocks[i].price = next < 1 ? 1 : next;
        snprintf(topic, sizeof topic, "price/%s", stocks[i].symbol);
        int size = snprintf(json, sizeof json, "{\"s\":\"%s\",\"p\":%.2f}", stocks[i].symbol, stocks[i].price);
        rtpush_publish_ex(h, &(rtpush_publication){ .topic = topic, .data = json, .size = (size_t)size,
                                                    .kind = RTPUSH_JSON }, NULL);
    }
    rtpush_after(h, 100, tick, user);
}

static bool on_request(rtpush_hub *h, rtpush_request *request, void *user) {
    (void)h, (void)user;
    rtpush_slice path = rtpush_path(request);
    if (path.size != 1 || path.data[0] != '/') return false;
    static const char headers[] = "Content-Type: text/html; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
                                  "Content-Security-Policy: default-src 'none'; connect-src 'self'; img-src data:; "
                                  "script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n";
    rtpush_reply(request, 200, headers, html, html_size);
    return true;
}

static void on_signal(int number) {
    (void)number;
    rtpush_stop(hub);
}

static void join_page(void) {
    for (size_t i = 0; i < sizeof page / sizeof *page; i++) {
        size_t size = strlen(page[i]);
        if (html_size + size + 1 > sizeof html) abort(); // html[] is too small for the page
        memcpy(html + html_size, page[i], size);
        html[html_size + size] = '\n';
        html_size += size + 1;
    }
}

int main(int argc, char **argv) {
    int code = 0, port = argc > 1 ? atoi(argv[1]) : 8080;
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", port);
    join_page();
    hub = rtpush_create_ex(&(rtpush_desc){ .on_request = on_request, .publish_off = true }, &code);
    if (hub) {
        rtpush_configure(hub, "price/*", &(rtpush_topic_desc){ .history = 1, .slow = RTPUSH_SLOW_LATEST });
        code = rtpush_listen(hub, url, &port);
    }
    if (code) {
        fprintf(stderr, "ticker: %s: %s\n", url, rtpush_strerror(code));
        if (hub) rtpush_destroy(hub);
        return 1;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    printf("open http://127.0.0.1:%d/ (Ctrl-C ends it)\n", port);
    fflush(stdout);
    tick(hub, NULL);
    code = rtpush_run(hub);
    rtpush_destroy(hub);
    return code ? 1 : 0;
}
