@echo off
rem Starts local-api-proxy.exe beside this file; a double click on the exe itself does the same.
setlocal
cd /d "%~dp0"
if exist "local-api-proxy.exe" goto run
chcp 65001 >nul
echo local-api-proxy.exe is not in this folder. Put both files into one folder.
echo 此文件夹中没有 local-api-proxy.exe。请把两个文件放在同一个文件夹中。
echo   "%CD%"
pause
exit /b 1

:run
"%~dp0local-api-proxy.exe" %*
if not errorlevel 1 exit /b 0
if errorlevel 130 exit /b 0
pause
exit /b 1
