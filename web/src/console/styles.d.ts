// The bundler collects stylesheets that modules import.
declare module '*.css';
