// One cursor for all charts: it follows the pointer, and a slider moves it with the keys. Nothing here formats a number.
(() => {
  'use strict';
  const section = document.querySelector('.course[data-steps]');
  addEventListener('beforeprint', () => {
    for (const details of document.querySelectorAll('details')) details.open = true;
  });
  if (!section) return;
  const steps = Number(section.dataset.steps);
  const control = section.querySelector('.cursor-control');
  const slider = control.querySelector('input');
  const output = control.querySelector('output');
  const moments = slider.dataset.moments.split('|');
  const cursors = section.querySelectorAll('.cursor');
  const values = [...section.querySelectorAll('.at')].map((element) => [element, element.dataset.values.split('|')]);

  const show = (step) => {
    slider.value = step;
    slider.setAttribute('aria-valuetext', moments[step]);
    output.textContent = moments[step];
    for (const cursor of cursors) {
      cursor.hidden = false;
      cursor.style.left = `${(step / steps) * 100}%`;
      cursor.style.width = `${100 / steps}%`;
    }
    for (const [element, texts] of values) element.textContent = texts[step];
  };
  const hide = () => {
    output.textContent = 'Point at a chart, or move the slider';
    for (const cursor of cursors) cursor.hidden = true;
    for (const [element] of values) element.textContent = '';
  };

  slider.addEventListener('input', () => show(Number(slider.value)));
  slider.addEventListener('focus', () => show(Number(slider.value)));
  addEventListener('keydown', (event) => {
    if (event.key === 'Escape') hide();
  });
  for (const plot of section.querySelectorAll('.plot')) {
    const follow = (event) => {
      const box = plot.getBoundingClientRect();
      const step = Math.floor(((event.clientX - box.left) / box.width) * steps);
      show(Math.min(Math.max(step, 0), steps - 1));
    };
    plot.addEventListener('pointermove', follow);
    plot.addEventListener('pointerdown', follow);
  }
  slider.setAttribute('aria-valuetext', moments[0]);
  control.hidden = false;
  hide();
})();
