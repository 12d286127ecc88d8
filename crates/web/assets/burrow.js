// Makes pages live; each is complete without it. Nothing here knows what a page shows: a change is
// seen by loading the page again and putting in what differs.
'use strict';
(() => {
  const root = document.documentElement;
  const stored = localStorage.getItem('theme');
  if (stored) root.dataset.theme = stored;

  // Turns `old` into `now`, touching as little as it can; pieces are told apart by their ids. What
  // is added line by line keeps what it has.
  const morph = (old, now) => {
    if (old.isEqualNode(now) || (followed.has(old) && old.id === now.id)) return;
    if (old.nodeType !== 1 || old.nodeName !== now.nodeName || old.id !== now.id) {
      old.replaceWith(now);
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (name !== 'open' && !now.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of [...now.attributes]) {
      if (name !== 'value' && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const known = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
    let at = old.firstChild;
    for (const next of [...now.childNodes]) {
      const same = next.id ? known.get(next.id) : undefined;
      if (same && same !== at) {
        old.insertBefore(same, at);
        at = same;
      }
      if (at && (at.id || '') === (next.id || '')) {
        const after = at.nextSibling;
        morph(at, next);
        at = after;
      } else {
        old.insertBefore(next, at);
      }
    }
    while (at) {
      const after = at.nextSibling;
      at.remove();
      at = after;
    }
  };

  // The page is loaded again at most every two seconds, and not while nobody looks at it.
  let loading = false;
  let wanted = false;
  const reload = async () => {
    if (loading || document.hidden) {
      wanted = true;
      return;
    }
    loading = true;
    wanted = false;
    try {
      const answer = await fetch(location.href, { headers: { Accept: 'text/html' } });
      const text = await answer.text();
      if (answer.ok) {
        const now = new DOMParser().parseFromString(text, 'text/html');
        morph(document.querySelector('main'), now.querySelector('main'));
        document.title = now.title;
        if (!('live' in now.body.dataset)) delete document.body.dataset.live;
        follow();
      }
    } catch { /* the next event tries again */ }
    setTimeout(() => { loading = false; if (wanted) reload(); }, 2000);
  };

  const parse = (html) => {
    const template = document.createElement('template');
    template.innerHTML = html;
    return template.content;
  };

  const live = () => {
    const grid = document.querySelector('[data-cells]');
    const events = new EventSource(grid ? grid.dataset.cells : '/events');
    events.addEventListener('changed', () => { if ('live' in document.body.dataset) reload(); });
    events.addEventListener('cells', (event) => {
      for (const [id, html] of JSON.parse(event.data)) document.getElementById(id)?.replaceWith(parse(`<table><tr>${html}</tr></table>`).querySelector('td, th'));
    });
    let lost = false;
    events.onerror = () => { lost = true; };
    events.onopen = () => { if (lost) reload(); lost = false; };
    document.addEventListener('visibilitychange', () => { if (wanted) reload(); });
  };

  // Adds a running step's lines as they come; a line that was sent without its end is sent again.
  const followed = new Set();
  const follow = () => {
    const log = document.querySelector('[data-follow]');
    if (!log || followed.has(log)) return;
    followed.add(log);
    const events = new EventSource(log.dataset.follow);
    events.addEventListener('lines', (event) => {
      const room = root.scrollHeight - root.scrollTop - root.clientHeight;
      let lines = [...log.querySelectorAll('.lines')].pop();
      if (!lines) {
        log.replaceChildren(parse('<div class="lines"></div>'));
        lines = log.firstElementChild;
      }
      const fresh = parse(JSON.parse(event.data).html);
      for (const row of fresh.children) document.getElementById(row.id)?.remove();
      lines.append(fresh);
      while (lines.childElementCount > 6000) lines.firstElementChild.remove();
      if (room < 60) root.scrollTop = root.scrollHeight;
    });
    const done = () => { events.close(); followed.delete(log); reload(); };
    events.addEventListener('reset', done);
    events.addEventListener('end', done);
  };

  const jump = (step) => {
    const hits = [...document.querySelectorAll('.l.hit, .grid .cell.failed')];
    if (!hits.length) return;
    const at = hits.findIndex((hit) => hit.classList.contains('here') || hit === document.activeElement);
    const next = hits[(at + step + hits.length + (at < 0 && step < 0 ? 1 : 0)) % hits.length];
    hits[at]?.classList.remove('here');
    if (next.matches('.l')) next.classList.add('here');
    else next.focus();
    next.scrollIntoView({ block: 'center', inline: 'nearest' });
  };

  // Arrows move among the cells of a grid.
  const move = (key) => {
    const here = document.activeElement?.closest('.grid td, .grid th');
    if (!here) return false;
    const row = here.parentElement;
    const at = [...row.children].indexOf(here);
    const next = {
      ArrowLeft: here.previousElementSibling,
      ArrowRight: here.nextElementSibling,
      ArrowUp: row.previousElementSibling?.children[at],
      ArrowDown: row.nextElementSibling?.children[at],
    }[key];
    const link = next?.querySelector('a');
    link?.focus({ preventScroll: true });
    link?.scrollIntoView({ block: 'center', inline: 'center' });
    return Boolean(next);
  };

  const distance = (seconds) => {
    const s = Math.abs(seconds);
    const words = s < 5400 ? `${Math.round(s / 60)} min` : s < 129600 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
    if (s < 45) return seconds >= 0 ? 'just now' : 'in a moment';
    if (s >= 5184000) return null;
    return seconds >= 0 ? `${words} ago` : `in ${words}`;
  };
  const tick = () => {
    for (const time of document.querySelectorAll('time[datetime]')) {
      const words = distance((Date.now() - Date.parse(time.dateTime)) / 1000);
      if (words && time.textContent !== words) time.textContent = words;
    }
  };

  document.addEventListener('DOMContentLoaded', () => {
    const toggle = document.getElementById('theme');
    toggle.hidden = false;
    toggle.addEventListener('click', () => {
      const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
      root.dataset.theme = dark ? 'light' : 'dark';
      localStorage.setItem('theme', root.dataset.theme);
    });
    document.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.nodeName)) return;
      if (event.key === '/') { event.preventDefault(); document.getElementById('q').focus(); }
      if (event.key === 'n') jump(1);
      if (event.key === 'p') jump(-1);
      if (event.key.startsWith('Arrow') && move(event.key)) event.preventDefault();
    });
    if ('live' in document.body.dataset) live();
    follow();
    setInterval(tick, 20000);
  });
})();
