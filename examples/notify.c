// Notify: each user has a queue, @user/NAME, that fills while they are away and is delivered when they return.
//
//   cc -O2 examples/notify.c -o notify && ./notify [PORT]         then open http://127.0.0.1:8080/
//
// Sign in under any name: there are no passwords, so this shows how a login is connected, not how one is made.
// From outside, as anybody who is signed in:
//
//   curl -c jar -d name=bot http://127.0.0.1:8080/login
//   curl -b jar -d 'the build is done' 'http://127.0.0.1:8080/send?to=ann'
#define RTPUSH_IMPLEMENTATION
#include "../rtpush.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// One line an element: C99 promises room for 4,095 characters in one literal, and the page is longer. The line NAME
// is the user's, which needs no escaping (is_name).
static const char *const page[] = {
    "<!doctype html>",
    "<html lang='en'>",
    "<meta charset='utf-8'>",
    "<meta name='viewport' content='width=device-width, initial-scale=1, viewport-fit=cover'>",
    "<title>rtpush notify</title>",
    "<link rel='icon' href='data:,'>",
    "<style>",
    ":root { color-scheme: light dark; --bg: #eef0f4; --panel: #fff; --ink: #1a2230; --soft: #566072; --line: #d7dce4;",
    "  --accent: #2f5fd8; --main: #2f5fd8; --on: #16924a; --wait: #d98b06; --off: #cf3b3b; }",
    "@media (prefers-color-scheme: dark) {",
    "  :root { --bg: #11151c; --panel: #1a202a; --ink: #e6ebf3; --soft: #9ca8ba; --line: #2d3644; --accent: #8fb0ff;",
    "    --main: #3058b8; --on: #3ccb78; --wait: #f0b03c; --off: #ff6f6f; } }",
    "* { box-sizing: border-box; margin: 0; }",
    "[hidden] { display: none !important; }",
    "body { background: var(--bg); color: var(--ink); max-width: 38rem; margin: 0 auto; padding: 1rem;",
    "  font: 16px/1.45 system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif; }",
    "header { display: flex; align-items: center; justify-content: space-between; gap: 1rem; margin-bottom: 1rem; }",
    "h1 { font-size: 1.25rem; line-height: 1.3; letter-spacing: -.01em; }",
    "h1 span { color: var(--accent); }",
    "h2 { font-size: 1.05rem; margin-bottom: .6rem; }",
    ".card { background: var(--panel); border: 1px solid var(--line); border-radius: .9rem; padding: 1rem;",
    "  margin-bottom: 1rem; }",
    "form { display: grid; gap: .5rem; }",
    "label { font-size: .85rem; font-weight: 600; color: var(--soft); margin-bottom: -.35rem; }",
    "input, textarea, button { font: inherit; color: inherit; border: 1px solid var(--line); border-radius: .6rem;",
    "  background: var(--bg); padding: .5rem .7rem; min-width: 0; min-height: 2.75rem; }",
    "textarea { resize: vertical; }",
    "button { cursor: pointer; }",
    "button.main { background: var(--main); border-color: var(--main); color: #fff; font-weight: 600; }",
    ":focus-visible { outline: 3px solid var(--accent); outline-offset: 1px; }",
    "p.soft, #sent { color: var(--soft); font-size: .9rem; }",
    "#sent { min-height: 1.4rem; }",
    "#state { display: flex; align-items: center; gap: .45rem; font-size: .9rem; }",
    "#state i { width: .75rem; height: .75rem; border-radius: 50%; background: var(--wait); }",
    "#state[data-state=on] i { background: var(--on); }",
    "#state[data-state=off] i { background: var(--off); border-radius: 2px; }",
    "#list { list-style: none; padding: 0; display: flex; flex-direction: column-reverse; }",
    "#list:empty::before { content: 'Nothing yet.'; color: var(--soft); }",
    "#list li { padding: .6rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }",
    "#list li:last-child { border-top: 0; }",
    "#list b { font-size: .9rem; }",
    "#list p { white-space: pre-wrap; }",
    "#list .new b::after { content: 'new'; margin-left: .6rem; padding: .05rem .5rem; border-radius: 1rem;",
    "  font-size: .75rem; background: var(--main); color: #fff; }",
    "</style>",
    "<body data-name='",
    "NAME",
    "'>",
    "<header>",
    "  <div>",
    "    <h1>rtpush <span>notify</span></h1>",
    "    <p id='state' role='status' data-state='wait' hidden><i></i><span>connecting</span></p>",
    "  </div>",
    "  <form id='out' method='post' action='/logout' hidden><button>Sign out</button></form>",
    "</header>",
    "<main>",
    "<form id='in' class='card' method='post' action='/login' hidden>",
    "  <h2>Sign in</h2>",
    "  <p class='soft'>Any name will do: this is a demo without passwords. Do not use it for secrets.</p>",
    "  <label for='name'>Your name (letters, digits, - and _)</label>",
    "  <input id='name' name='name' maxlength='32' pattern='([A-Za-z0-9_]|-)+' autocomplete='username' required>",
    "  <button class='main'>Sign in</button>",
    "</form>",
    "<div id='app' hidden>",
    "  <section class='card' aria-labelledby='list-h'>",
    "    <h2 id='list-h'></h2>",
    "    <ul id='list' aria-live='polite'></ul>",
    "  </section>",
    "  <form id='send' class='card'>",
    "    <h2>Send a notification</h2>",
    "    <label for='to'>To</label>",
    "    <input id='to' maxlength='32' pattern='([A-Za-z0-9_]|-)+' autocomplete='off' required>",
    "    <label for='text'>Text</label>",
    "    <textarea id='text' rows='2' maxlength='300' required></textarea>",
    "    <button class='main'>Send</button>",
    "    <p id='sent' role='status'></p>",
    "  </form>",
    "</div>",
    "</main>",
    "<script>",
    "'use strict';",
    "const $ = id => document.getElementById(id);",
    "const me = document.body.dataset.name.trim();",
    "const key = 'rtpush-notify-seen-' + me;",
    "let seen = '';      // the cursor behind the last one that was looked at, in this browser",
    "try { seen = localStorage[key] || ''; } catch (e) { /* storage is off: everything is new */ }",
    "",
    "function newer(id, than) {",
    "  const a = id.split('-'), b = than.split('-');",
    "  return a[0] !== b[0] || Number(a[1]) > Number(b[1]);",
    "}",
    "function state(s, text) {",
    "  $('state').dataset.state = s;",
    "  $('state').children[1].textContent = text;",
    "}",
    "function look() {   // what is on the page of a visible tab has been looked at",
    "  const last = $('list').lastElementChild;",
    "  if (!last || document.hidden) return;",
    "  try { localStorage[key] = last.dataset.id; } catch (e) { /* storage is off */ }",
    "}",
    "function got(e) {   // first line: who; the rest: what",
    "  const end = e.data.indexOf(String.fromCharCode(10));",
    "  const li = $('list').appendChild(document.createElement('li'));",
    "  li.dataset.id = e.lastEventId;",
    "  if (newer(e.lastEventId, seen)) li.className = 'new';",
    "  li.appendChild(document.createElement('b')).textContent = e.data.slice(0, end);",
    "  li.appendChild(document.createElement('p')).textContent = e.data.slice(end + 1);",
    "  look();",
    "}",
    "",
    "if (me) {",
    "  $('list-h').textContent = 'Notifications for ' + me;",
    "  // All that is held for us, then what comes. After a break the browser resumes by Last-Event-ID.",
    "  const source = new EventSource('/live/@user/' + me + '?since=earliest');",
    "  source.onopen = () => state('on', 'connected');",
    "  source.onmessage = got;",
    "  source.onerror = () => {",
    "    if (source.readyState !== EventSource.CLOSED) return state('wait', 'reconnecting');",
    "    state('off', 'signed out');     // 401: the server does not know our cookie any more",
    "    setTimeout(() => location.reload(), 2000);",
    "  };",
    "}",
    "$('send').onsubmit = async e => {",
    "  e.preventDefault();",
    "  const to = $('to').value.trim(), text = $('text').value.trim();",
    "  try {",
    "    const r = await fetch('/send?to=' + encodeURIComponent(to), { method: 'POST', body: text });",
    "    $('sent').textContent = await r.text();",
    "    if (r.ok) $('text').value = '';",
    "  } catch (e) {",
    "    $('sent').textContent = 'Not sent: the server cannot be reached.';",
    "  }",
    "};",
    "document.addEventListener('visibilitychange', look);",
    "$(me ? 'app' : 'in').hidden = false;",
    "$('out').hidden = $('state').hidden = !me;",
    "if (!me) $('name').focus();",
    "</script>",
};

static rtpush_hub *hub; // for the signal handler

// Who is signed in: the cookie's random token, and the name behind it. The oldest makes room for the newest.
static struct {
    char token[33], name[33];
} logins[1000];
static size_t logins_next;

static bool is_name(const char *s, size_t size) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (size_t i = 0; i < size; i++)
        if (!memchr(allowed, s[i], sizeof allowed - 1)) return false;
    return size >= 1 && size <= 32;
}

static char *name_of(const rtpush_request *request) {
    rtpush_slice token = rtpush_cookie(request, "notify");
    for (size_t i = 0; token.size == 32 && i < sizeof logins / sizeof *logins; i++) {
        int differs = !logins[i].name[0];
        for (size_t k = 0; k < 32; k++) differs |= logins[i].token[k] ^ token.data[k]; // in constant time
        if (!differs) return logins[i].name;
    }
    return NULL;
}

// The library asks: who is it? The same cookie opens WebSocket, SSE and polls.
static int on_login(rtpush_hub *h, rtpush_login *login, void *user) {
    (void)h, (void)user;
    const char *name = login->request ? name_of(login->request) : NULL;
    if (!name) return RTPUSH_E_UNAUTHORIZED;
    strcpy(login->identity, name);
    return RTPUSH_OK;
}

// The library asks: may they? One's own queue may be read, and that is all there is. Publishing goes by /send.
static bool on_allow(rtpush_hub *h, const char *identity, int verb, const char *topic, void *user) {
    (void)h, (void)user;
    return verb == RTPUSH_VERB_READ && !strncmp(topic, "@user/", 6) && !strcmp(topic + 6, identity);
}

static void reply(rtpush_request *request, int status, const char *headers, const char *text) {
    if (!headers) headers = "Content-Type: text/plain; charset=utf-8\r\n";
    rtpush_reply(request, status, headers, text, strlen(text));
}

static void get_page(rtpush_request *request, const char *name) {
    char html[16 * 1024] = "";
    size_t size = 0;
    for (size_t i = 0; i < sizeof page / sizeof *page; i++) {
        const char *line = strcmp(page[i], "NAME") ? page[i] : name;
        size += (size_t)snprintf(html + size, sizeof html - size, "%s\n", line);
        if (size >= sizeof html) abort(); // html[] is too small for the page
    }
    reply(request, 200, "Content-Type: text/html; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
                        "Content-Security-Policy: default-src 'none'; connect-src 'self'; form-action 'self'; img-src "
                        "data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n"
                        "Cache-Control: no-store\r\n", html);
}

// The body is name=NAME (a name has no character that a form would escape); the answer is a cookie with a token of
// 128 unpredictable bits. Behind https it should also say Secure.
static void post_login(rtpush_request *request) {
    rtpush_slice body = rtpush_body(request);
    unsigned char bits[16];
    FILE *f = fopen("/dev/urandom", "rb");
    bool is_random = f && fread(bits, sizeof bits, 1, f) == 1;
    if (f) fclose(f);
    if (body.size <= 5 || memcmp(body.data, "name=", 5) || !is_name(body.data + 5, body.size - 5)) {
        reply(request, 400, NULL, "A name is 1 to 32 letters, digits, - and _.\n");
    } else if (!is_random) {
        reply(request, 500, NULL, "There are no random numbers here.\n");
    } else {
        char headers[160];
        size_t at = logins_next++ % (sizeof logins / sizeof *logins);
        for (size_t i = 0; i < sizeof bits; i++) snprintf(logins[at].token + 2 * i, 3, "%02x", bits[i]);
        snprintf(logins[at].name, sizeof logins[at].name, "%.*s", (int)body.size - 5, body.data + 5);
        snprintf(headers, sizeof headers, "Location: /\r\nSet-Cookie: notify=%s; Path=/; HttpOnly; SameSite=Strict\r\n",
                 logins[at].token);
        reply(request, 303, headers, "");
    }
}

static void post_send(rtpush_hub *h, rtpush_request *request, const char *from) {
    char to[40], topic[48], note[1100];
    rtpush_slice body = rtpush_body(request);
    ptrdiff_t size = rtpush_query(request, "to", to, sizeof to);
    if (size < 0 || !is_name(to, (size_t)size) || !body.size || body.size > 1000) {
        reply(request, 400, NULL, "It takes ?to=NAME and a text of 1 to 1,000 bytes.\n");
        return;
    }
    int head = snprintf(note, sizeof note, "%s\n", from); // first line: who; the rest: what
    memcpy(note + head, body.data, body.size);
    snprintf(topic, sizeof topic, "@user/%s", to);
    bool is_here = rtpush_subscribers(h, topic) > 0;
    int code = rtpush_publish_user(h, to, note, (size_t)head + body.size);
    if (code) reply(request, 503, NULL, rtpush_strerror(code));
    else reply(request, 200, NULL, is_here ? "Delivered.\n" : "Away: it waits for them.\n");
}

static bool on_request(rtpush_hub *h, rtpush_request *request, void *user) {
    (void)user;
    rtpush_slice path = rtpush_path(request), method = rtpush_method(request);
    char route[64], *name = name_of(request);
    snprintf(route, sizeof route, "%.*s %.*s", (int)method.size, method.data, (int)path.size, path.data);
    if (!strcmp(route, "GET /")) get_page(request, name ? name : "");
    else if (!strcmp(route, "POST /login")) post_login(request);
    else if (!strcmp(route, "POST /send") && name) post_send(h, request, name);
    else if (!strcmp(route, "POST /send")) reply(request, 401, NULL, "Sign in first.\n");
    else if (!strcmp(route, "POST /logout")) {
        if (name) rtpush_kick(h, name, 4001, "signed out"), *name = 0; // another browser of theirs comes back at once
        reply(request, 303, "Location: /\r\n", "");
    } else return false;
    return true;
}

static void on_signal(int number) {
    (void)number;
    rtpush_stop(hub);
}

int main(int argc, char **argv) {
    int code = 0, port = argc > 1 ? atoi(argv[1]) : 8080;
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", port);
    hub = rtpush_create_ex(&(rtpush_desc){ .on_login = on_login, .on_allow = on_allow, .on_request = on_request,
                                           .publish_off = true, .expose_off = true }, &code);
    if (hub) {
        const int64_t week_ms = 7 * 24 * 3600 * (int64_t)1000;
        rtpush_configure(hub, "@user/*", &(rtpush_topic_desc){ .history = 100, .history_ms = week_ms });
        code = rtpush_listen(hub, url, &port);
    }
    if (code) {
        fprintf(stderr, "notify: %s: %s\n", url, rtpush_strerror(code));
        if (hub) rtpush_destroy(hub);
        return 1;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    printf("open http://127.0.0.1:%d/ (Ctrl-C ends it)\n", port);
    fflush(stdout);
    code = rtpush_run(hub);
    rtpush_destroy(hub);
    return code ? 1 : 0;
}
