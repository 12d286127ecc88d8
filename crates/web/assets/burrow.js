// Makes pages live; each is complete without it. Nothing here knows what a page shows: a change is
// seen by loading the page again and putting in what differs.
'use strict';
(() => {
  const root = document.documentElement;
  const stored = localStorage.getItem('theme');
  if (stored) root.dataset.theme = stored;

  // Turns `old` into `now`, touching as little as it can; rows are told apart by their ids.
  const morph = (old, now) => {
    if (old.isEqualNode(now) || (old.dataset && 'keep' in old.dataset)) return;
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

  let loading = false;
  const reload = async () => {
    if (loading || document.hidden) return;
    loading = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: 'text/html' } });
      const text = await answer.text();
      if (answer.ok) morph(document.querySelector('main'), new DOMParser().parseFromString(text, 'text/html').querySelector('main'));
    } catch { /* the next event tries again */ }
    setTimeout(() => { loading = false; if (wanted) { wanted = false; reload(); } }, 2000);
  };
  let wanted = false;
  const changed = () => { if (loading || document.hidden) wanted = true; else reload(); };

  const live = () => {
    const events = new EventSource('/events');
    events.addEventListener('builds', changed);
    let lost = false;
    events.onerror = () => { lost = true; };
    events.onopen = () => { if (lost) changed(); lost = false; };
    document.addEventListener('visibilitychange', () => { if (wanted) { wanted = false; reload(); } });
  };

  const follow = (log) => {
    const lines = log.querySelector('.lines');
    const events = new EventSource(log.dataset.follow);
    events.addEventListener('lines', (event) => {
      const bottom = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      const piece = JSON.parse(event.data);
      lines.querySelector('.partial')?.remove();
      lines.insertAdjacentHTML('beforeend', piece.html);
      while (lines.childElementCount > 6000) lines.firstElementChild.remove();
      if (bottom) log.scrollTop = log.scrollHeight;
    });
    events.addEventListener('reset', () => location.reload());
    events.addEventListener('end', () => { events.close(); location.reload(); });
  };

  const jump = (step) => {
    const hits = [...document.querySelectorAll('.l.hit')];
    if (!hits.length) return;
    const at = hits.findIndex((hit) => hit.classList.contains('here'));
    const next = hits[(at + step + hits.length + (at < 0 && step < 0 ? 1 : 0)) % hits.length];
    hits[at]?.classList.remove('here');
    next.classList.add('here');
    next.scrollIntoView({ block: 'center' });
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
    });
    if ('live' in document.body.dataset) live();
    const log = document.querySelector('[data-follow]');
    if (log) { log.scrollTop = log.scrollHeight; follow(log); }
    setInterval(tick, 20000);
  });
})();
