@echo off
rem Starts local-api-proxy.exe beside this file. Plain ASCII: right in every code page.
setlocal
cd /d "%~dp0"
title local-api-proxy
if exist "local-api-proxy.exe" goto check
echo local-api-proxy.exe is not in this folder:
echo   "%CD%"
echo Put it beside start_proxy.bat and start again.
echo.
pause
exit /b 1

:check
if exist ".env" goto run
if exist ".env.example" goto create
>".env" echo OPENROUTER_API_KEY=
goto edit
:create
copy /y ".env.example" ".env" >nul
:edit
echo A new file .env was made. Put your OpenRouter key behind OPENROUTER_API_KEY= and save it.
echo A free key: https://openrouter.ai/keys
echo The proxy starts now and reads the key as soon as you save it.
echo.
start "" notepad ".env"

:run
"%~dp0local-api-proxy.exe" %*
if not errorlevel 1 exit /b 0
if errorlevel 130 exit /b 0
echo.
echo The proxy has stopped because of the error above.
pause
exit /b 1
